"""The hash index of the flow table: from a packet's key to the head of its flow, whichever way the packet goes."""

import numpy as np

from transforms.identity import icmp_two_way
from transforms.kernel import kernel, kernel_part
from transforms.records import ICMP, ICMPV6
from transforms.table_layout import ICMP_PORTS, NEVER, SEED, TOP_HEAD, VNI_IN_KEY


@kernel_part
def _mix(value):
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xD6E8FEB86659FD93)
    value ^= value >> np.uint64(32)
    return value


@kernel_part
def _has_ports(packet, limits):
    return limits[ICMP_PORTS] != 0 or (packet.protocol != ICMP and packet.protocol != ICMPV6)


@kernel_part
def key_hash(packet, limits):
    """The table's own hash, the same for both directions; seeded, so that nobody can prepare collisions."""
    seed = np.uint64(limits[SEED])
    src, dst = packet.src_lo ^ seed, packet.dst_lo ^ seed
    if _has_ports(packet, limits):
        src ^= np.uint64(packet.src_port) << np.uint64(48)
        dst ^= np.uint64(packet.dst_port) << np.uint64(48)
    src, dst = _mix(src), _mix(dst)
    if packet.ip_version == 6:
        src = _mix(src ^ packet.src_hi)
        dst = _mix(dst ^ packet.dst_hi)
    rest = np.uint64(packet.protocol) | np.uint64(packet.vlan_id) << np.uint64(8)
    if limits[VNI_IN_KEY]:
        rest ^= np.uint64(packet.vni) << np.uint64(24)
    return _mix((src + dst) ^ (rest * np.uint64(0x9E3779B97F4A7C15)))


@kernel_part
def _same_key(head, packet, limits):
    """1: as the first packet of `head`; -1: the opposite direction; 0: another key."""
    first = head.first
    if first.protocol != packet.protocol or first.vlan_id != packet.vlan_id or first.ip_version != packet.ip_version:
        return 0
    if limits[VNI_IN_KEY] and first.vni != packet.vni:
        return 0
    ports = _has_ports(packet, limits)
    if first.src_lo == packet.src_lo and first.dst_lo == packet.dst_lo:
        if first.src_hi == packet.src_hi and first.dst_hi == packet.dst_hi:
            if not ports or (first.src_port == packet.src_port and first.dst_port == packet.dst_port):
                return 1
    if first.src_lo == packet.dst_lo and first.dst_lo == packet.src_lo:
        if first.src_hi == packet.dst_hi and first.dst_hi == packet.src_hi:
            if not ports:
                return -1
            if first.src_port == packet.dst_port and first.dst_port == packet.src_port:
                if packet.protocol == ICMP or packet.protocol == ICMPV6:
                    if not icmp_two_way(packet.protocol, packet.src_port, packet.dst_port):
                        return 0
                return -1
    return 0


@kernel_part
def find(heads, slots, hash_, packet, limits):
    """-> (slot, head or -1, direction): a slot holds the upper half of a hash and the number of a head, or -1."""
    mask = np.int64(len(slots) - 1)
    at = np.int64(hash_ & np.uint64(mask))
    tag = np.int64(hash_ >> np.uint64(33))
    while True:
        slot = slots[at]
        if slot < 0:
            return at, np.int64(-1), 0
        if slot >> 32 == tag:
            i = slot & 0xFFFFFFFF
            direction = _same_key(heads[i], packet, limits)
            if direction != 0:
                return at, i, direction
        at = (at + 1) & mask


@kernel_part
def put(slots, hash_, i):
    """Enters head `i`, which is not there yet."""
    mask = np.int64(len(slots) - 1)
    at = np.int64(hash_ & np.uint64(mask))
    while slots[at] >= 0:
        at = (at + 1) & mask
    slots[at] = np.int64(hash_ >> np.uint64(33)) << 32 | i


@kernel
def enter_all(heads, deadlines, slots, counts):
    """Enters every open head into empty slots."""
    for i in range(counts[TOP_HEAD]):
        if deadlines[i] != NEVER:
            put(slots, heads[i].hash, i)


@kernel_part
def remove(heads, slots, i):
    """Takes head `i` out of the slots and closes the hole (linear probing, backward shift)."""
    mask = np.int64(len(slots) - 1)
    at = np.int64(heads[i].hash & np.uint64(mask))
    while slots[at] & 0xFFFFFFFF != i:
        at = (at + 1) & mask
    hole = at
    while True:
        at = (at + 1) & mask
        slot = slots[at]
        if slot < 0:
            break
        home = np.int64(heads[slot & 0xFFFFFFFF].hash & np.uint64(mask))
        if ((at - home) & mask) >= ((at - hole) & mask):
            slots[hole] = slot
            hole = at
    slots[hole] = -1
