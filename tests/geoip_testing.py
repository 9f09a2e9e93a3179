"""MaxMind DB files for tests: a writer of the format (version 2.0), and records in the shape of GeoLite2's."""

import ipaddress
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_MARKER = b"\xab\xcd\xefMaxMind.com"
_NONE = -1


class _U16(int):
    type_ = 5


class _U64(int):
    type_ = 9


class Unsigned128(int):
    """A number that is written with the widest type."""

    type_ = 10


def place(
    iso: str | None, city: str | None = None, at: tuple[float, float] | None = None, **more: Any
) -> dict[str, Any]:
    """A record of a City database."""
    record: dict[str, Any] = dict(more)
    if iso is not None:
        record["country"] = {"iso_code": iso, "names": {"de": f"Land {iso}", "en": f"Country {iso}"}}
        record["subdivisions"] = [{"iso_code": "01", "names": {"en": f"Region of {iso}"}}]
    if city is not None:
        record["city"] = {"names": {"en": city, "fr": f"Ville de {city}"}}
    if at is not None:
        record["location"] = {"latitude": float(at[0]), "longitude": float(at[1])}
    return record


def system(number: int, organization: str | None = None) -> dict[str, Any]:
    """A record of an ASN database."""
    record: dict[str, Any] = {"autonomous_system_number": number}
    return {**record, "autonomous_system_organization": organization} if organization else record


def write_database(
    path: Path, type_: str, networks: Iterable[tuple[str, Any]], ip_version: int = 6, record_bits: int = 24
) -> Path:
    """Writes a database; of networks in one another, the inner ones must come last."""
    nodes: list[list[int]] = [[_NONE, _NONE]]
    values: list[Any] = []
    for text, record in networks:
        _insert(nodes, _bits(text, ip_version), -2 - len(values))
        values.append(record)
    data, offsets, known = bytearray(), [], {}
    for record in values:
        encoded = _encoded(record)
        if encoded not in known:
            known[encoded] = len(data)
            data += encoded
        offsets.append(known[encoded])
    with path.open("wb") as file:
        for node in nodes:
            left, right = (_record(child, len(nodes), offsets) for child in node)
            file.write(_node(left, right, record_bits))
        metadata = {
            "node_count": len(nodes),
            "record_size": _U16(record_bits),
            "ip_version": _U16(ip_version),
            "database_type": type_,
            "languages": ["en"],
            "binary_format_major_version": _U16(2),
            "binary_format_minor_version": _U16(0),
            "build_epoch": _U64(1_795_266_000),
            "description": {"en": "made by a test"},
        }
        file.write(bytes(16) + bytes(data) + _MARKER + _encoded(metadata))
    return path


def _bits(text: str, ip_version: int) -> str:
    network = ipaddress.ip_network(text)
    bits = f"{int(network.network_address):0{network.max_prefixlen}b}"[: network.prefixlen]
    return "0" * 96 + bits if network.version == 4 and ip_version == 6 else bits


def _insert(nodes: list[list[int]], bits: str, leaf: int) -> None:
    at = 0
    for bit in map(int, bits[:-1]):
        child = nodes[at][bit]
        if child < 0:  # what held for all of it holds for its halves
            nodes.append([child, child])
            child = nodes[at][bit] = len(nodes) - 1
        at = child
    nodes[at][int(bits[-1])] = leaf


def _record(child: int, nodes: int, offsets: list[int]) -> int:
    if child == _NONE:
        return nodes
    return child if child >= 0 else nodes + 16 + offsets[-2 - child]


def _node(left: int, right: int, record_bits: int) -> bytes:
    if record_bits == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3, "big") + bytes([middle]) + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(record_bits // 8, "big") + right.to_bytes(record_bits // 8, "big")


def _encoded(value: Any) -> bytes:
    if isinstance(value, dict):
        return _control(7, len(value)) + b"".join(_encoded(part) for pair in value.items() for part in pair)
    if isinstance(value, bytes):  # a piece of the data section as it is
        return value
    if isinstance(value, str):
        return _control(2, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return _control(3, 8) + struct.pack(">d", value)
    if isinstance(value, list):
        return _control(11, len(value)) + b"".join(map(_encoded, value))
    octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return _control(getattr(value, "type_", 6), len(octets)) + octets


def _control(type_: int, size: int) -> bytes:
    kind = bytes([type_ - 7]) if type_ > 7 else b""
    first = type_ << 5 if type_ <= 7 else 0
    if size < 29:
        return bytes([first | size]) + kind
    if size < 285:
        return bytes([first | 29]) + kind + bytes([size - 29])
    return bytes([first | 30]) + kind + (size - 285).to_bytes(2, "big")
