"""The kernels of the flow table: packets in time order are folded into open flows, and flows that are due are found."""

import numpy as np
from numba.extending import overload

from transforms import tcp
from transforms.features import flow_state
from transforms.features.registry import family_named
from transforms.identity import icmp_answer, icmp_two_way
from transforms.kernel import kernel
from transforms.records import ACK, FRAGMENT_LATER, ICMP, ICMPV6, PACKET, RST, SYN, TCP, TRANSPORT_WHOLE

HEAD = np.dtype(
    [
        ("hash", "u8"),
        ("last_ns", "i8"),
        ("first", PACKET),
        ("row", "i4"),  # its row of states; -1 for a flow of one packet
        ("ordinal", "u4"),
        ("records", "u4"),  # interim records so far
        ("flipped", "u1"),  # the first packet came from the responder
        ("changed", "u1"),  # since the last interim record
        ("dormant", "u1"),  # between two parts: the last one is out, the next has not begun
        ("end_reason", "u1"),
    ],
    align=True,
)
"""What every open flow has: a flood of one-packet flows costs no more than this."""

THREAD = np.dtype([("flow_first_ns", "i8"), ("flow_part", "u4"), ("tcp", tcp.CONNECTION)], align=True)
"""What the parts of one flow hand on."""

NEVER = np.int64(0x7FFFFFFFFFFFFFFF)
SCRATCH, BLANK = 0, 1
"""Rows with a purpose of their own: a one-packet flow is worked out in the first; the second starts each new row."""
RESERVED_ROWS = 2

IDLE, ACTIVE, ENDED, FORCED, RESOURCES = 1, 2, 3, 4, 5
"""flowEndReason (IPFIX 136)."""

FREE_HEADS, TOP_HEAD, CLOSED, FREE_ROWS, TOP_ROW, SOONEST, NEXT = range(7)
"""Places in `counts`: sizes of the free lists, high-water marks, flows to be put out, earliest deadline, next packet."""

SEED, IDLE_NS, ACTIVE_NS, LINGER_NS, TCP_RULE, REUSE_RULE, ICMP_PORTS, VNI_IN_KEY, FAMILIES, MAX_OPEN = range(10)
"""Places in `limits`."""

FOREVER = -1
"""A delay that never passes."""


def row_dtype(states: np.dtype) -> np.dtype:
    """A row of the table for these family states."""
    return np.dtype([("thread", THREAD), ("flow", flow_state.FLOW), ("states", states)], align=True)


def update_states(states, flow, packet, forward, chosen):  # noqa: D103 - replaced when compiled
    raise AssertionError("only called from kernels")


@overload(update_states, inline="never")
def _update_states(states, flow, packet, forward, chosen):
    """One call a family, written out: a family is known by the name of its field in `states`."""
    names = [name for name, _ in states.members]
    scope = {name: family_named(name).update for name in names}
    lines = ["def update(states, flow, packet, forward, chosen):"]
    for bit, name in enumerate(names):
        lines += [f"    if chosen & {1 << bit}:", f"        {name}(states.{name}, flow, packet, forward)"]
    exec("\n".join([*lines, "    return"]), scope)
    return scope["update"]


@kernel
def later(time_ns, delay_ns):
    """`time_ns + delay_ns`, but never beyond the last time there is: `passed` then has the say."""
    return time_ns + delay_ns if delay_ns != FOREVER and time_ns < NEVER - 1 - delay_ns else NEVER - 1


@kernel
def passed(since_ns, delay_ns, now_ns):
    """Whether `delay_ns` have gone by at `now_ns`, whatever the times: their difference may need 64 bits unsigned."""
    if delay_ns == FOREVER or now_ns < since_ns:
        return False
    return np.uint64(now_ns) - np.uint64(since_ns) >= np.uint64(delay_ns)


@kernel
def _mix(value):
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xD6E8FEB86659FD93)
    value ^= value >> np.uint64(32)
    return value


@kernel
def _has_ports(packet, limits):
    return limits[ICMP_PORTS] != 0 or (packet.protocol != ICMP and packet.protocol != ICMPV6)


@kernel
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


@kernel
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


@kernel
def _find(heads, slots, hash_, packet, limits):
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


@kernel
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


@kernel
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


@kernel
def count(flow, packet, forward):
    """Adds a packet to the totals of its flow, after the families have seen it."""
    side = flow.fwd if forward else flow.rev
    if side.packets == 0:
        side.first_ns = packet.time_ns
    side.packets += 1
    side.frame_octets += packet.frame_octets
    side.ip_octets += packet.ip_octets
    side.payload_octets += packet.payload_octets
    side.header_octets += packet.header_octets
    side.ip_header_octets += packet.ip_header_octets
    side.payload_packets += packet.payload_octets > 0
    side.last_ns = packet.time_ns
    if packet.protocol == TCP and packet.transport == TRANSPORT_WHOLE and packet.fragment < FRAGMENT_LATER:
        side.tcp_flags |= packet.tcp_flags
    if flow.packets == 0:
        flow.first_ns = packet.time_ns
        flow.protocol = packet.protocol
    flow.packets += 1
    flow.last_ns = packet.time_ns


@kernel
def _add(row, packet, forward, chosen):
    update_states(row.states, row.flow, packet, forward, chosen)
    count(row.flow, packet, forward)
    tcp.observe(row.thread.tcp, packet, forward)


@kernel
def open_row(row, blank, head, chosen):
    """Makes a fresh flow's row from its first packet."""
    row.thread = blank.thread
    row.flow = blank.flow
    row.states = blank.states
    row.thread.flow_first_ns = head.first.time_ns
    tcp.begin(row.thread.tcp, head.first)
    _add(row, head.first, not head.flipped, chosen)


@kernel
def _take(free, counts, free_at, top_at):
    """A free number, or the next one never used."""
    if counts[free_at] > 0:
        counts[free_at] -= 1
        return np.int64(free[counts[free_at]])
    counts[top_at] += 1
    return counts[top_at] - 1


@kernel
def _comes_from_responder(packet):
    """An answer by nature as a flow's first packet: what came before it was not captured."""
    if packet.protocol == TCP:
        return packet.transport == TRANSPORT_WHOLE and packet.tcp_flags & (SYN | ACK) == SYN | ACK
    if packet.protocol == ICMP or packet.protocol == ICMPV6:
        return icmp_answer(packet.protocol, packet.src_port, packet.dst_port)
    return False


@kernel
def _deadline(first_ns, last_ns, closing, closed_ns, limits):
    """When the flow is due, if nothing more comes."""
    if closing and limits[TCP_RULE]:
        return later(closed_ns, limits[LINGER_NS])
    return min(later(last_ns, limits[IDLE_NS]), later(first_ns, limits[ACTIVE_NS]))


@kernel
def _is_closing(head, rows, limits):
    if not limits[TCP_RULE]:
        return False
    if head.row >= 0:
        return rows[head.row].thread.tcp.closing != 0
    first = head.first
    return first.protocol == TCP and first.transport == TRANSPORT_WHOLE and (first.tcp_flags & RST) != 0


@kernel
def _part_first_ns(head, rows):
    return head.first.time_ns if head.row < 0 else rows[head.row].flow.first_ns


@kernel
def _why_due(head, rows, now_ns, limits):
    """The end reason of a flow whose deadline is reached; 0 if it is beyond the last time there is."""
    if _is_closing(head, rows, limits):
        closed_ns = head.first.time_ns if head.row < 0 else rows[head.row].thread.tcp.closed_ns
        return ENDED if passed(closed_ns, limits[LINGER_NS], now_ns) else 0
    idle = passed(head.last_ns, limits[IDLE_NS], now_ns)
    first_ns = _part_first_ns(head, rows)
    if head.dormant or not passed(first_ns, limits[ACTIVE_NS], now_ns):
        return IDLE if idle else 0
    return IDLE if idle and head.last_ns + limits[IDLE_NS] <= first_ns + limits[ACTIVE_NS] else ACTIVE


@kernel
def _reuses(head, rows, packet, forward, limits):
    if not limits[REUSE_RULE] or not tcp.is_open_request(packet):
        return False
    if head.row >= 0:
        return tcp.is_reuse(rows[head.row].thread.tcp, packet, forward)
    scratch = rows[SCRATCH].thread.tcp
    tcp.begin(scratch, head.first)
    tcp.observe(scratch, head.first, not head.flipped)
    return tcp.is_reuse(scratch, packet, forward)


@kernel
def release(heads, i, free, free_rows, counts):
    """Gives head `i` and its row back."""
    if heads[i].row >= 0:
        free_rows[counts[FREE_ROWS]] = heads[i].row
        counts[FREE_ROWS] += 1
    free[counts[FREE_HEADS]] = i
    counts[FREE_HEADS] += 1


@kernel
def _hand_on(source, rows, to):
    """Readies row `to` for the part after that of head `source`: the same TCP state and first time."""
    row = rows[to]
    row.thread = rows[BLANK].thread
    row.flow = rows[BLANK].flow
    row.states = rows[BLANK].states
    if source.row >= 0:
        row.thread = rows[source.row].thread
    else:
        row.thread.flow_first_ns = source.first.time_ns
        tcp.begin(row.thread.tcp, source.first)
        tcp.observe(row.thread.tcp, source.first, not source.flipped)
    row.thread.flow_part += np.uint32(1)


@kernel
def fold(packets, start, heads, rows, deadlines, slots, free, free_rows, closed, counts, limits):
    """Adds `packets[start:]`, which are in time order; stops early, at `counts[NEXT]`, when the table is full.

    Heads for each packet and rows for two of each packet must be free. Ended flows are appended to `closed`.
    """
    chosen = limits[FAMILIES]
    soonest = counts[SOONEST]
    j = start
    while j < len(packets):
        packet = packets[j]
        hash_ = key_hash(packet, limits)
        at, i, direction = _find(heads, slots, hash_, packet, limits)
        forward = True
        old = np.int64(-1)  # the flow that ended just now
        continues = False  # ... and whose next part begins with this packet
        if i >= 0:
            head = heads[i]
            forward = (direction > 0) != (head.flipped != 0)
            reason = _why_due(head, rows, packet.time_ns, limits) if packet.time_ns >= deadlines[i] else 0
            if reason:
                idle = passed(head.last_ns, limits[IDLE_NS], packet.time_ns)
                continues = reason == ACTIVE and not idle and not _reuses(head, rows, packet, forward, limits)
            elif _reuses(head, rows, packet, forward, limits):
                reason = ENDED
            elif head.dormant:
                head.dormant = 0  # its row is that of the next part, still empty
                head.first = packet
                head.flipped = not forward
            if reason:
                old = i
                i = np.int64(-1)
        if i < 0:
            if old < 0 and counts[TOP_HEAD] - counts[FREE_HEADS] - counts[CLOSED] >= limits[MAX_OPEN]:
                break
            i = _take(free, counts, FREE_HEADS, TOP_HEAD)
            slots[at] = np.int64(hash_ >> np.uint64(33)) << 32 | i
            head = heads[i]
            head.hash = hash_
            head.first = packet
            head.row = -1
            head.ordinal = 0
            head.records = 0
            head.dormant = 0
            head.end_reason = 0
            head.flipped = _comes_from_responder(packet)
            forward = forward if continues else not head.flipped
            if old >= 0:
                deadlines[old] = NEVER
                if continues:
                    head.row = _take(free_rows, counts, FREE_ROWS, TOP_ROW)
                    _hand_on(heads[old], rows, head.row)
                    head.ordinal = heads[old].ordinal
                    head.flipped = not forward
                else:
                    gone = heads[old]
                    first_ns = gone.first.time_ns if gone.row < 0 else rows[gone.row].thread.flow_first_ns
                    if first_ns == packet.time_ns:
                        head.ordinal = gone.ordinal + np.uint32(1)
                if heads[old].dormant:
                    release(heads, old, free, free_rows, counts)
                else:
                    heads[old].end_reason = reason
                    closed[counts[CLOSED]] = old
                    counts[CLOSED] += 1
        elif heads[i].row < 0:
            head = heads[i]
            head.row = _take(free_rows, counts, FREE_ROWS, TOP_ROW)
            open_row(rows[head.row], rows[BLANK], head, chosen)
        head = heads[i]
        head.last_ns = packet.time_ns
        head.changed = 1
        if head.row >= 0:
            row = rows[head.row]
            _add(row, packet, forward, chosen)
            connection = row.thread.tcp
            due = _deadline(row.flow.first_ns, packet.time_ns, connection.closing, connection.closed_ns, limits)
        else:
            due = _deadline(packet.time_ns, packet.time_ns, _is_closing(head, rows, limits), packet.time_ns, limits)
        deadlines[i] = due
        soonest = min(soonest, due)
        j += 1
    counts[SOONEST] = soonest
    counts[NEXT] = j


@kernel
def sweep(time_ns, heads, rows, deadlines, slots, free, free_rows, closed, counts, limits):
    """Appends the flows with a deadline at or before `time_ns` to `closed`; dormant ones just go.

    A part that the active timeout ends moves to a head of its own. Its old one stays in the table, marked dormant, with a
    fresh row for the next part, until the flow is idle too.

    Returns:
        Whether it stopped early for want of a free head or row, and must be called again.
    """
    soonest = NEVER
    for i in range(counts[TOP_HEAD]):
        due = deadlines[i]
        if due > time_ns or due == NEVER:
            soonest = min(soonest, due)
            continue
        head = heads[i]
        reason = _why_due(head, rows, time_ns, limits)
        if reason == 0:
            soonest = min(soonest, due)
            continue
        ended = i
        if reason == ACTIVE and not passed(head.last_ns, limits[IDLE_NS], time_ns):
            no_head = counts[FREE_HEADS] == 0 and counts[TOP_HEAD] == len(heads)
            if no_head or (counts[FREE_ROWS] == 0 and counts[TOP_ROW] == len(rows)):
                return True
            ended = _take(free, counts, FREE_HEADS, TOP_HEAD)
            heads[ended] = head
            head.row = _take(free_rows, counts, FREE_ROWS, TOP_ROW)
            _hand_on(heads[ended], rows, head.row)
            head.records = 0
            head.dormant = 1
            deadlines[i] = later(head.last_ns, limits[IDLE_NS])
            soonest = min(soonest, deadlines[i])
        else:
            remove(heads, slots, i)
            deadlines[i] = NEVER
            if head.dormant:
                release(heads, i, free, free_rows, counts)
                continue
        heads[ended].end_reason = reason
        closed[counts[CLOSED]] = ended
        counts[CLOSED] += 1
    counts[SOONEST] = soonest
    return False


@kernel
def close_all(heads, rows, deadlines, slots, free, free_rows, closed, counts, limits):
    """Ends every flow that is still open at the end of the input."""
    for i in range(counts[TOP_HEAD]):
        if deadlines[i] == NEVER:
            continue
        deadlines[i] = NEVER
        if heads[i].dormant:
            release(heads, i, free, free_rows, counts)
            continue
        heads[i].end_reason = ENDED if _is_closing(heads[i], rows, limits) else FORCED
        closed[counts[CLOSED]] = i
        counts[CLOSED] += 1
    slots[:] = -1
    counts[SOONEST] = NEVER


@kernel
def evict(chosen, heads, deadlines, slots, free, free_rows, closed, counts):
    """Ends the `chosen` flows for lack of room."""
    for i in chosen:
        remove(heads, slots, i)
        deadlines[i] = NEVER
        if heads[i].dormant:
            release(heads, i, free, free_rows, counts)
            continue
        heads[i].end_reason = RESOURCES
        closed[counts[CLOSED]] = i
        counts[CLOSED] += 1


@kernel
def changed_flows(heads, deadlines, counts, found):
    """Numbers of the open flows that changed since the last interim report -> how many."""
    n = 0
    for i in range(counts[TOP_HEAD]):
        head = heads[i]
        if deadlines[i] != NEVER and head.changed and not head.dormant:
            found[n] = i
            n += 1
            head.changed = 0
    return n
