"""The first packets of a flow one by one: direction, lengths and gaps (SPLT)."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.features import sequences
from transforms.fields import Field
from transforms.kernel import kernel

PACKETS = 20
"""Packets that are kept of each flow."""

PAYLOAD_PACKETS = 8
"""Packets with payload whose direction is kept."""

FIELDS = (
    Field("splt_direction", pa.list_(pa.int8()), "", "Of each of the first 20 packets: 1 forward, -1 reverse."),
    Field("splt_ip_octets", pa.list_(pa.int32()), "octets", "IP total length of each of the first 20 packets."),
    Field("splt_frame_octets", pa.list_(pa.int32()), "octets", "Octets on the wire of each of the first 20 packets."),
    Field("splt_iat_us", pa.list_(pa.int64()), "us", "Gap before each of the first 20 packets, cut to µs; first 0."),
    Field(
        "first_payload_directions",
        pa.list_(pa.int8()),
        "",
        "Of each of the first 8 packets with payload: 1 forward, -1 reverse.",
    ),
)

STATE = np.dtype(
    [
        ("ip_octets", "u4", PACKETS),
        ("frame_octets", "u4", PACKETS),
        ("gap_us_low", "u4", PACKETS),
        ("gap_us_high", "u2", PACKETS),
        ("forward", "u4"),  # bit i: packet i was sent by the initiator
        ("payload_forward", "u1"),  # the same for packets with payload
    ],
    align=True,
)
"""The packets so far; how many there are, `flow` knows."""


@kernel
def update(state, flow, packet, forward):
    """Keeps `packet` while it is among the first."""
    index = flow.packets
    if index < PACKETS:
        state.ip_octets[index] = packet.ip_octets
        state.frame_octets[index] = packet.frame_octets
        if index:
            gap_us = min((packet.time_ns - flow.last_ns) // 1000, sequences.LARGEST)
            state.gap_us_low[index] = gap_us & sequences.LOW
            state.gap_us_high[index] = gap_us >> 32
        if forward:
            state.forward |= np.uint32(1 << index)
    if forward and packet.payload_octets:
        with_payload = flow.fwd.payload_packets + flow.rev.payload_packets
        if with_payload < PAYLOAD_PACKETS:
            state.payload_forward |= np.uint8(1 << with_payload)


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, pa.ListArray]]:
    """Lists as long as the flow, 20 or 8 at most."""
    packets = np.minimum(flows["packets"], PACKETS)
    begin = sequences.offsets(packets)
    yield "splt_direction", sequences.lists(_signs(states["forward"], packets, begin), begin, pa.int8())
    for name in ("ip_octets", "frame_octets"):
        lengths = sequences.beginnings(states[name], packets, begin)
        np.minimum(lengths, np.iinfo(np.int32).max, out=lengths)
        yield f"splt_{name}", sequences.lists(lengths.view(np.int32), begin, pa.int32())
    low, high = (sequences.beginnings(states[f"gap_us_{half}"], packets, begin) for half in ("low", "high"))
    yield "splt_iat_us", sequences.lists(sequences.joined(low, high), begin, pa.int64())
    with_payload = np.minimum(_payload_packets(flows), PAYLOAD_PACKETS)
    begin = sequences.offsets(with_payload)
    directions = _signs(states["payload_forward"], with_payload, begin)
    yield "first_payload_directions", sequences.lists(directions, begin, pa.int8())


def _payload_packets(flows: np.ndarray) -> np.ndarray:
    count: np.ndarray = flows["fwd"]["payload_packets"] + flows["rev"]["payload_packets"]
    return count


def _signs(bits: np.ndarray, counts: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """1 where a bit is set and -1 where not, for the lowest `counts` bits of each number, one list behind the other."""
    octets = np.ascontiguousarray(bits).view(np.uint8)
    matrix = np.unpackbits(octets, bitorder="little").view(np.int8).reshape(len(bits), -1)
    signs = sequences.beginnings(matrix, counts, begin)
    signs *= 2
    signs -= 1
    return signs
