"""The fold: packets in time order into open flows, and the flows that each of them ends.

`table_layout` says what the arrays are. Families are called by the name of their state's field, all in one loop.
"""

import numpy as np
from numba.extending import overload

from transforms import tcp
from transforms.features.registry import family_named
from transforms.identity import icmp_answer
from transforms.kernel import as_part, kernel, kernel_part
from transforms.records import ACK, FRAGMENT_LATER, ICMP, ICMPV6, RST, SYN, TCP, TRANSPORT_WHOLE
from transforms.table_index import find, key_hash
from transforms.table_layout import (
    ACTIVE,
    ACTIVE_NS,
    BLANK,
    CLOSED,
    ENDED,
    FAMILIES,
    FOREVER,
    FREE_HEADS,
    FREE_ROWS,
    IDLE,
    IDLE_NS,
    LINGER_NS,
    MAX_OPEN,
    NEVER,
    NEXT,
    REUSE_RULE,
    SCRATCH,
    SOONEST,
    TCP_RULE,
    TOP_HEAD,
    TOP_ROW,
)


def update_states(states, flow, packet, forward, chosen):  # noqa: D103 - replaced when compiled
    raise AssertionError("only called from kernels")


@overload(update_states, as_part(), inline="never")
def _update_states(states, flow, packet, forward, chosen):
    """One call a family, written out: a family is known by the name of its field in `states`."""
    names = [name for name, _ in states.members]
    scope = {name: kernel_part(family_named(name).update.py_func) for name in names}
    lines = ["def update(states, flow, packet, forward, chosen):"]
    for bit, name in enumerate(names):
        lines += [f"    if chosen & {1 << bit}:", f"        {name}(states.{name}, flow, packet, forward)"]
    exec("\n".join([*lines, "    return"]), scope)
    return scope["update"]


@kernel_part
def later(time_ns, delay_ns):
    """`time_ns + delay_ns`, but never beyond the last time there is: `passed` then has the say."""
    return time_ns + delay_ns if delay_ns != FOREVER and time_ns < NEVER - 1 - delay_ns else NEVER - 1


@kernel_part
def passed(since_ns, delay_ns, now_ns):
    """Whether `delay_ns` have gone by at `now_ns`, whatever the times: their difference may need 64 bits unsigned."""
    if delay_ns == FOREVER or now_ns < since_ns:
        return False
    return np.uint64(now_ns) - np.uint64(since_ns) >= np.uint64(delay_ns)


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


@kernel_part
def _add(row, packet, forward, chosen):
    update_states(row.states, row.flow, packet, forward, chosen)
    count(row.flow, packet, forward)
    tcp.observe(row.thread.tcp, packet, forward)


@kernel_part
def open_row(row, blank, head, chosen):
    """Makes a fresh flow's row from its first packet."""
    row.thread = blank.thread
    row.flow = blank.flow
    row.states = blank.states
    row.thread.flow_first_ns = head.first.time_ns
    tcp.begin(row.thread.tcp, head.first)
    _add(row, head.first, not head.flipped, chosen)


@kernel_part
def take(free, counts, free_at, top_at):
    """A free number, or the next one never used."""
    if counts[free_at] > 0:
        counts[free_at] -= 1
        return np.int64(free[counts[free_at]])
    counts[top_at] += 1
    return counts[top_at] - 1


@kernel_part
def _comes_from_responder(packet):
    """An answer by nature as a flow's first packet: what came before it was not captured."""
    if packet.protocol == TCP:
        return packet.transport == TRANSPORT_WHOLE and packet.tcp_flags & (SYN | ACK) == SYN | ACK
    if packet.protocol == ICMP or packet.protocol == ICMPV6:
        return icmp_answer(packet.protocol, packet.src_port, packet.dst_port)
    return False


@kernel_part
def _deadline(first_ns, last_ns, closing, closed_ns, limits):
    """When the flow is due, if nothing more comes."""
    if closing and limits[TCP_RULE]:
        return later(closed_ns, limits[LINGER_NS])
    return min(later(last_ns, limits[IDLE_NS]), later(first_ns, limits[ACTIVE_NS]))


@kernel_part
def is_closing(head, rows, limits):
    """Whether the TCP rule has closed the flow."""
    if not limits[TCP_RULE]:
        return False
    if head.row >= 0:
        return rows[head.row].thread.tcp.closing != 0
    first = head.first
    return first.protocol == TCP and first.transport == TRANSPORT_WHOLE and (first.tcp_flags & RST) != 0


@kernel_part
def _part_first_ns(head, rows):
    return head.first.time_ns if head.row < 0 else rows[head.row].flow.first_ns


@kernel_part
def why_due(head, rows, now_ns, limits):
    """The end reason of a flow whose deadline is reached; 0 if it is beyond the last time there is."""
    if is_closing(head, rows, limits):
        closed_ns = head.first.time_ns if head.row < 0 else rows[head.row].thread.tcp.closed_ns
        return ENDED if passed(closed_ns, limits[LINGER_NS], now_ns) else 0
    idle = passed(head.last_ns, limits[IDLE_NS], now_ns)
    first_ns = _part_first_ns(head, rows)
    if head.dormant or not passed(first_ns, limits[ACTIVE_NS], now_ns):
        return IDLE if idle else 0
    return IDLE if idle and head.last_ns + limits[IDLE_NS] <= first_ns + limits[ACTIVE_NS] else ACTIVE


@kernel_part
def _reuses(head, rows, packet, forward, limits):
    if not limits[REUSE_RULE] or not tcp.is_open_request(packet):
        return False
    if head.row >= 0:
        return tcp.is_reuse(rows[head.row].thread.tcp, packet, forward)
    scratch = rows[SCRATCH].thread.tcp
    tcp.begin(scratch, head.first)
    tcp.observe(scratch, head.first, not head.flipped)
    return tcp.is_reuse(scratch, packet, forward)


@kernel_part
def release(heads, i, free, free_rows, counts):
    """Gives head `i` and its row back."""
    if heads[i].row >= 0:
        free_rows[counts[FREE_ROWS]] = heads[i].row
        counts[FREE_ROWS] += 1
    free[counts[FREE_HEADS]] = i
    counts[FREE_HEADS] += 1


@kernel_part
def hand_on(source, rows, to):
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
        at, i, direction = find(heads, slots, hash_, packet, limits)
        forward = True
        old = np.int64(-1)  # the flow that ended just now
        continues = False  # ... and whose next part begins with this packet
        if i >= 0:
            head = heads[i]
            forward = (direction > 0) != (head.flipped != 0)
            reason = why_due(head, rows, packet.time_ns, limits) if packet.time_ns >= deadlines[i] else 0
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
            i = take(free, counts, FREE_HEADS, TOP_HEAD)
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
                    head.row = take(free_rows, counts, FREE_ROWS, TOP_ROW)
                    hand_on(heads[old], rows, head.row)
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
            head.row = take(free_rows, counts, FREE_ROWS, TOP_ROW)
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
            due = _deadline(packet.time_ns, packet.time_ns, is_closing(head, rows, limits), packet.time_ns, limits)
        deadlines[i] = due
        soonest = min(soonest, due)
        j += 1
    counts[SOONEST] = soonest
    counts[NEXT] = j
