"""Builders of capture files, octet by octet: what a test says is in a file is in it, valid or not."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets
from transforms.records import PACKET, PacketBatch

ETHERNET = 1


def frame(number: int, payload: bytes = b"") -> bytes:
    """An Ethernet frame with an IPv4 UDP packet that comes from the address `number`."""
    udp = struct.pack(">4H", 1000, 2000, 8 + len(payload), 0) + payload
    ip = struct.pack(">2B3H2BH2I", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, number, 0x0A000001)
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0" + ip + udp


FRAME_OCTETS = len(frame(0))


def number_of(packets: np.ndarray) -> list[int]:
    """The numbers that `frame` gave to the packets."""
    return (packets["src_lo"] & np.uint64(0xFFFFFFFF)).tolist()


def pcap_header(order: str = "<", magic: int = 0xA1B2C3D4, version: tuple[int, int] = (2, 4), link: int = 1) -> bytes:
    return struct.pack(f"{order}I2H4I", magic, *version, 0, 0, 262144, link)


def pcap_record(seconds: int, units: int, data: bytes, order: str = "<", wire: int | None = None) -> bytes:
    return struct.pack(f"{order}4I", seconds, units, len(data), len(data) if wire is None else wire) + data


def pcap(times_ns: Sequence[int], first: int = 0) -> bytes:
    """A nanosecond pcap: packet `first` + i at `times_ns[i]`. Fast, for many packets."""
    times = np.asarray(times_ns, np.int64)
    record = np.dtype(
        [("s", "<u4"), ("ns", "<u4"), ("captured", "<u4"), ("wire", "<u4"), ("frame", "u1", FRAME_OCTETS)]
    )
    records = np.zeros(len(times), record)
    records["s"], records["ns"] = np.divmod(times, 1_000_000_000)
    records["captured"] = records["wire"] = FRAME_OCTETS
    records["frame"] = np.frombuffer(frame(0), np.uint8)
    records["frame"][:, 26:30] = (first + np.arange(len(times))).astype(">u4").view(np.uint8).reshape(-1, 4)
    return pcap_header(magic=0xA1B23C4D) + records.tobytes()


def block(kind: int, body: bytes, order: str = "<", length: int | None = None, trailer: int | None = None) -> bytes:
    body += b"\0" * (-len(body) % 4)
    length = len(body) + 12 if length is None else length
    return (
        struct.pack(f"{order}2I", kind, length)
        + body
        + struct.pack(f"{order}I", length if trailer is None else trailer)
    )


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}2H", code, len(value)) + value + b"\0" * (-len(value) % 4)


def section(order: str = "<", version: tuple[int, int] = (1, 0)) -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}I2Hq", 0x1A2B3C4D, *version, -1), order)


def interface(
    order: str = "<", link: int = ETHERNET, snap: int = 0, resolution: int | None = None, offset_s: int | None = None
) -> bytes:
    options = b"" if resolution is None else option(9, bytes([resolution]), order)
    options += b"" if offset_s is None else option(14, struct.pack(f"{order}q", offset_s), order)
    return block(1, struct.pack(f"{order}2HI", link, 0, snap) + options, order)


def enhanced(ticks: int, data: bytes, order: str = "<", number: int = 0, wire: int | None = None) -> bytes:
    lengths = len(data), len(data) if wire is None else wire
    return block(6, struct.pack(f"{order}5I", number, ticks >> 32, ticks & 0xFFFFFFFF, *lengths) + _padded(data), order)


def obsolete(ticks: int, data: bytes, order: str = "<", number: int = 0) -> bytes:
    head = struct.pack(f"{order}2H4I", number, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(2, head + _padded(data), order)


def simple(data: bytes, order: str = "<", wire: int | None = None) -> bytes:
    return block(3, struct.pack(f"{order}I", len(data) if wire is None else wire) + _padded(data), order)


def statistics(number: int, drops: int, order: str = "<") -> bytes:
    return block(5, struct.pack(f"{order}3I", number, 0, 0) + option(5, struct.pack(f"{order}Q", drops), order), order)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def snoop(records: Iterable[tuple[int, int, bytes]], datalink: int = 4, version: int = 2) -> bytes:
    """A snoop file of (seconds, µs, frame)."""
    written = b"snoop\0\0\0" + struct.pack(">2I", version, datalink)
    for seconds, us, data in records:
        padded = _padded(data)
        written += struct.pack(">6I", len(data), len(data), 24 + len(padded), 0, seconds, us) + padded
    return written


def read(*paths: Path | str, settings: ReadSettings | None = None) -> tuple[np.ndarray, ReadReport]:
    """All packets of the files, as one sensor's, and the report."""
    batches, report = read_batches(*paths, settings=settings)
    return np.concatenate([np.empty(0, PACKET), *(batch.packets for batch in batches)]), report


def read_batches(*paths: Path | str, settings: ReadSettings | None = None) -> tuple[list[PacketBatch], ReadReport]:
    report = ReadReport()
    files = SensorInput("tap", tuple(str(path) for path in paths))
    return list(read_packets(files, settings or ReadSettings(), report)), report
