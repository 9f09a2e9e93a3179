"""Sampling by flow: a sensor keeps one flow of N, both directions of it, and so does every other sensor."""

import re

import numpy as np

from sources.rows import Rows
from transforms.identity import packet_shard
from transforms.kernel import kernel, kernel_part
from transforms.records import InputError

REJECT_SAMPLED_OUT = "sampled_out"
"""The reason under which packets of other flows are counted."""

_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SEED = np.uint64(0x9E3779B97F4A7C15)


def parse_share(text: str) -> int:
    """N of `1/N`; raises `InputError` if it is something else."""
    found = re.fullmatch(r"1/([1-9]\d{0,8})", text)
    if found is None:
        raise InputError(f"--sample: {text!r} is no share of flows; give 1/N, such as 1/16")
    return int(found[1])


def sampled(rows: Rows, one_of: int) -> Rows:
    """The packets of the flows that are kept.

    A flow is its endpoints and protocol, as for shards, but its hash is mixed with a seed of its own: what is kept is
    spread over all shards and partitions. Packets whose fragments are not resolved would be taken for another flow.

    Args:
        rows: Packets whose fragments are resolved, with their payload prefixes. They stay as they are.
        one_of: N: one of so many flows is kept.
    """
    if one_of == 1:
        return rows
    packets, payloads = np.empty_like(rows.packets), np.empty_like(rows.payloads)
    count, octets = _keep(rows.packets, rows.payloads, np.uint64(one_of), packets, payloads)
    return Rows(packets[:count], payloads[:octets])


@kernel_part
def _is_kept(packet, one_of):
    """Whether the flow of a packet is one of those; the mixing is SplitMix64's (Steele, Lea and Flood, 2014)."""
    mixed = packet_shard(packet) + _SEED
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLIER_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLIER_2
    mixed ^= mixed >> np.uint64(31)
    return mixed % one_of == 0


@kernel
def _keep(packets, payloads, one_of, kept, kept_payloads):
    count, octets = 0, 0
    for i in range(len(packets)):
        if not _is_kept(packets[i], one_of):
            continue
        kept[count] = packets[i]
        if len(payloads):
            start = np.int64(packets[i].payload_at) - np.int64(packets[0].payload_at)
            length = np.int64(packets[i].payload_captured)
            kept_payloads[octets : octets + length] = payloads[start : start + length]
            kept[count].payload_at = octets
            octets += length
        count += 1
    return count, octets
