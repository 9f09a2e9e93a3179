"""Flows that end without a packet of theirs: by their deadline, at the end of the input, or for want of room."""

from transforms.fold import hand_on, is_closing, later, passed, release, take, why_due
from transforms.kernel import kernel
from transforms.table_index import remove
from transforms.table_layout import (
    ACTIVE,
    CLOSED,
    ENDED,
    FORCED,
    FREE_HEADS,
    FREE_ROWS,
    IDLE_NS,
    NEVER,
    RESOURCES,
    SOONEST,
    TOP_HEAD,
    TOP_ROW,
)


@kernel
def sweep(time_ns, heads, rows, deadlines, slots, free, free_rows, closed, counts, limits):
    """Appends the flows with a deadline at or before `time_ns` to `closed`; dormant ones just go.

    A part that the active timeout ends moves to a head of its own. Its old one stays in the table, marked dormant, with
    a fresh row for the next part, until the flow is idle too.

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
        reason = why_due(head, rows, time_ns, limits)
        if reason == 0:
            soonest = min(soonest, due)
            continue
        ended = i
        if reason == ACTIVE and not passed(head.last_ns, limits[IDLE_NS], time_ns):
            no_head = counts[FREE_HEADS] == 0 and counts[TOP_HEAD] == len(heads)
            if no_head or (counts[FREE_ROWS] == 0 and counts[TOP_ROW] == len(rows)):
                return True
            ended = take(free, counts, FREE_HEADS, TOP_HEAD)
            heads[ended] = head
            head.row = take(free_rows, counts, FREE_ROWS, TOP_ROW)
            hand_on(heads[ended], rows, head.row)
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
        heads[i].end_reason = ENDED if is_closing(heads[i], rows, limits) else FORCED
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
