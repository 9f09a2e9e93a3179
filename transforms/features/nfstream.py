"""`nfstream@1`: 27 core columns of NFStream 6.6, 48 statistics, SPLT. Lengths are frame octets (accounting mode 0)."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.features.columns import (
    MILLISECONDS,
    SUM,
    UNCHANGED,
    WHOLE_MILLISECONDS,
    WHOLE_MILLISECONDS_BETWEEN,
    ZERO,
    Column,
    Conversion,
    as_lists,
    padded,
)

SPLT_PACKETS = 20
"""Length of the three SPLT lists; NFStream leaves it to `splt_analysis`."""

_TUNNELS = (("gtp-u", 1), ("vxlan", 5), ("gre", 6), ("erspan", 6))
"""nDPI's `ndpi_packet_tunnel`; ERSPAN travels in GRE. It has no number for the other tunnels that we open."""

_SIDES = (("bidirectional", "flow"), ("src2dst", "fwd"), ("dst2src", "rev"))


def _oui(macs: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(macs, 0, len("00:00:00"))


def _tunnel_id(tunnels: pa.Array) -> pa.Array:
    names = pa.array([None, *(name for name, _ in _TUNNELS)], pa.string())
    numbers = pa.array([0, *(number for _, number in _TUNNELS)], pa.int64())
    return numbers.take(pc.index_in(tunnels, names))


def _splt(values: pa.ListArray) -> pa.ListArray:
    return as_lists(padded(values, SPLT_PACKETS, -1))


def _splt_direction(directions: pa.ListArray) -> pa.ListArray:
    matrix = padded(directions, SPLT_PACKETS, 0)
    return as_lists(np.choose(matrix + 1, np.array([1, -1, 0], matrix.dtype)))


def _splt_milliseconds(gaps: pa.ListArray) -> pa.ListArray:
    return as_lists(padded(gaps.cast(pa.list_(pa.float64())), SPLT_PACKETS, -1000) / 1000)


OUI = Conversion("first three octets", _oui)
TUNNEL_ID = Conversion(
    "null → 0, " + ", ".join(f"{name} → {number}" for name, number in _TUNNELS) + ", others null", _tunnel_id
)
SPLT = Conversion(f"{SPLT_PACKETS} values, −1 behind the last packet", _splt)
SPLT_DIRECTION = Conversion(f"1 → 0, −1 → 1; {SPLT_PACKETS} values, −1 behind the last packet", _splt_direction)
SPLT_MILLISECONDS = Conversion(f"µs → ms; {SPLT_PACKETS} values, −1 behind the last packet", _splt_milliseconds)


def _core() -> Iterator[Column]:
    for end in ("src", "dst"):
        yield Column(f"{end}_ip", (f"{end}_ip",), UNCHANGED, "identity")
        yield Column(f"{end}_mac", (f"{end}_mac",), UNCHANGED, "identity")
        yield Column(f"{end}_oui", (f"{end}_mac",), OUI, "identity")
        yield Column(f"{end}_port", (f"{end}_port",), UNCHANGED, "identity")
    yield Column("protocol", ("protocol",), UNCHANGED, "identity")
    yield Column("ip_version", ("ip_version",), UNCHANGED, "identity")
    yield Column("vlan_id", ("vlan_id",), UNCHANGED, "identity")
    yield Column("tunnel_id", ("tunnel",), TUNNEL_ID, "identity")
    for name, side in _SIDES:
        times = (f"{side}_start_ns", f"{side}_end_ns")
        yield Column(f"{name}_first_seen_ms", times[:1], WHOLE_MILLISECONDS, "identity")
        yield Column(f"{name}_last_seen_ms", times[1:], WHOLE_MILLISECONDS, "identity")
        yield Column(f"{name}_duration_ms", times, WHOLE_MILLISECONDS_BETWEEN)
        for published, counter in (("packets", "packets"), ("bytes", "frame_octets")):
            if side == "flow":
                yield Column(f"{name}_{published}", (f"fwd_{counter}", f"rev_{counter}"), SUM)
            else:
                yield Column(f"{name}_{published}", (f"{side}_{counter}",), ZERO)


def _statistics() -> Iterator[Column]:
    names = (("min", "min"), ("mean", "mean"), ("stddev", "std"), ("max", "max"))
    for name, side in _SIDES:
        for published, statistic in names:
            yield Column(f"{name}_{published}_ps", (f"{side}_frame_octets_{statistic}",), ZERO)
    for name, side in _SIDES:
        for published, statistic in names:
            yield Column(f"{name}_{published}_piat_ms", (f"{side}_iat_{statistic}_us",), MILLISECONDS)
    for name, side in _SIDES:
        for flag in ("syn", "cwr", "ece", "urg", "ack", "psh", "rst", "fin"):
            yield Column(f"{name}_{flag}_packets", (f"{side}_{flag}_count",), ZERO)


COLUMNS = (
    *_core(),
    *_statistics(),
    Column("splt_direction", ("splt_direction",), SPLT_DIRECTION),
    Column("splt_ps", ("splt_frame_octets",), SPLT),
    Column("splt_piat_ms", ("splt_iat_us",), SPLT_MILLISECONDS),
)
