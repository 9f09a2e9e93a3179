"""What a flow looks like from afar: who feeds whom, how random its payload is, small and large packets, DSCP, TTLs."""

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from transforms.features.flow_state import sides
from transforms.fields import Field
from transforms.kernel import kernel

SMALL_OCTETS, LARGE_OCTETS = 60, 220
"""YAF's bounds of smallPacketCount and largePacketCount: octets of payload, of packets that have any."""


def _fields() -> Iterator[Field]:
    ratio = "(sent − received) ÷ (sent + received) payload of the initiator, −1 to 1; null without payload."
    yield Field("producer_consumer_ratio", pa.float64(), "", ratio)
    for side, who in (("fwd", "initiator"), ("rev", "responder")):
        doc = f"Shannon entropy of the captured prefix of the {who}'s first packet that has one; null without."
        yield Field(f"{side}_payload_entropy", pa.float64(), "bits", doc)
    small = "Packets with payload, but less than 60 octets of it."
    yield Field("small_packets", pa.int64(), "packets", small, "smallPacketCount (CERT 6871/500)")
    large = "Packets with 220 or more octets of payload."
    yield Field("large_packets", pa.int64(), "packets", large, "largePacketCount (CERT 6871/510)")
    yield Field("dscp", pa.uint8(), "", "First DSCP of either side that is not 0; else 0.", "ipDiffServCodePoint 195")
    for side, who in (("fwd", "initiator"), ("rev", "responder")):
        sent = f"TTL or hop limit of the {who}'s packets"
        minimum, maximum = ("minimumTTL 52", "maximumTTL 53") if side == "fwd" else ("", "")
        yield Field(f"{side}_ttl_min", pa.uint8(), "", f"Smallest {sent}; null without a packet.", minimum)
        yield Field(f"{side}_ttl_max", pa.uint8(), "", f"Largest {sent}; null without a packet.", maximum)
        yield Field(f"{side}_ttl_distinct", pa.int64(), "", f"Number of different values of {sent}.")


FIELDS = tuple(_fields())

SIDE = np.dtype([("ttls", "u1", 32), ("payload_entropy", "f4"), ("entropy_known", "u1")], align=True)
"""`ttls` has bit t & 7 of octet t >> 3 set for each TTL t that was seen."""

STATE = np.dtype([("fwd", SIDE), ("rev", SIDE), ("small", "i8"), ("large", "i8"), ("dscp", "u1")], align=True)
"""What cannot be had from a flow's totals."""


@kernel
def update(state, flow, packet, forward):
    """Takes note of `packet`'s TTL, DSCP, payload and entropy."""
    side = state.fwd if forward else state.rev
    side.ttls[packet.ttl >> 3] |= np.uint8(1 << (packet.ttl & 7))
    if state.dscp == 0:
        state.dscp = packet.tos >> 2
    if packet.payload_octets == 0:
        return
    if packet.payload_octets < SMALL_OCTETS:
        state.small += 1
    elif packet.payload_octets >= LARGE_OCTETS:
        state.large += 1
    if packet.payload_captured and not side.entropy_known:
        side.entropy_known = 1
        side.payload_entropy = packet.payload_entropy


def features(states: np.ndarray, flows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """One row of columns for each flow."""
    sent, received = (side["payload_octets"].astype(np.float64) for _, side in sides(flows))
    both = sent + received
    yield "producer_consumer_ratio", np.ma.MaskedArray((sent - received) / np.maximum(both, 1), both == 0)
    for side in ("fwd", "rev"):
        bits = np.ascontiguousarray(states[side]["payload_entropy"])
        yield f"{side}_payload_entropy", np.ma.MaskedArray(bits, (states[side]["entropy_known"] == 0) | np.isnan(bits))
    yield "small_packets", states["small"]
    yield "large_packets", states["large"]
    yield "dscp", states["dscp"]
    for side in ("fwd", "rev"):
        ttls = np.ascontiguousarray(states[side]["ttls"])
        lowest, highest, distinct = _bits(ttls)
        none = distinct == 0
        yield f"{side}_ttl_min", np.ma.MaskedArray(lowest, none)
        yield f"{side}_ttl_max", np.ma.MaskedArray(highest, none)
        yield f"{side}_ttl_distinct", distinct


def _bits(octets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest bit that is set in each row of 32 octets, the highest one, and how many there are."""
    lowest, distinct = np.zeros(len(octets), np.uint8), np.zeros(len(octets), np.int64)
    words = np.ascontiguousarray(octets.view("<u8").T)
    for index in reversed(range(len(words))):
        word = words[index]
        if word.any():
            below = np.bitwise_count(~word & (word - np.uint64(1)))  # zeros below the lowest one
            lowest = np.where(word == 0, lowest, below + np.uint8(64 * index))
            distinct += np.bitwise_count(word)
    highest = lowest.copy()
    several = np.flatnonzero(distinct > 1)
    if len(several):
        bits = np.unpackbits(octets[several, ::-1], axis=1)
        highest[several] = 255 - bits.argmax(axis=1)
    return lowest, highest, distinct


COUNT_LOG2 = np.array([count * math.log2(count) if count else 0.0 for count in range(2049)])
"""c × log₂ c of the counts that a prefix of up to 2,048 octets can have."""


@kernel
def entropy(packets, payloads):
    """Fills `payload_entropy` of every packet that has a captured prefix.

    Shannon's entropy, H = log₂ n − (Σ c log₂ c) ÷ n, where c counts each value among the n octets of the prefix: 0
    to 8 bits per octet, and never more than log₂ n.

    Args:
        packets: `PACKET[n]`, written to.
        payloads: uint8 array of all prefixes, as `np.frombuffer` gives it.

    Raises:
        ValueError: A prefix lies outside of `payloads`.
    """
    counts = np.zeros(256, np.int64)
    for index in range(len(packets)):
        captured = np.int64(packets[index].payload_captured)
        if captured == 0:
            continue
        start = np.int64(packets[index].payload_at)
        if start + captured > len(payloads):
            raise ValueError("a packet's payload prefix lies outside of its batch's payloads")
        for at in range(start, start + captured):
            counts[payloads[at]] += 1
        total = 0.0
        for at in range(start, start + captured):
            count = counts[payloads[at]]
            if count > 1:
                total += COUNT_LOG2[count] if count < len(COUNT_LOG2) else count * math.log2(count)
            counts[payloads[at]] = 0
        packets[index].payload_entropy = math.log2(captured) - total / captured
