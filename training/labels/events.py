"""Events that name a flow and a time: alerts, notices, rows of a table of truth; millions of them, by sorted keys."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from training.labels.attacks import EITHER, Attack, Claims, FlowColumns
from transforms.enrich.address_numbers import NO_NETWORK, Networks, network_numbers
from transforms.records import ICMP, ICMPV6

BY_ENDS, BY_COMMUNITY_ID, BY_FLOW_ID = "ends", "community_id", "flow_id"

DURING, AT_FIRST, ANYTIME = "during", "at_first", "anytime"
"""When an event may be: between first and last packet of the flow's part; at the flow's first; or it has no time."""

_ENDS = np.dtype(
    [
        ("low", ">u8", 2),
        ("low_port", ">u2"),
        ("high", ">u8", 2),
        ("high_port", ">u2"),
        ("protocol", "u1"),
        ("mark", "u1"),
    ]
)
_MARK = 1
"""Last octet of every key: numpy takes zeros at the end of octet strings for no part of them."""

FLOW_ID_OCTETS = 16

_NIBBLES = np.full(256, 255, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_NIBBLES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)

_COLUMNS = {
    BY_ENDS: (),
    BY_COMMUNITY_ID: ("community_id",),
    BY_FLOW_ID: ("flow_id",),
}


class EventColumns(NamedTuple):
    """Events as they were read.

    Attributes:
        keys: Octet strings that say which flow; `ends_keys`, `id_keys`.
        time_ns: `int64[n]`.
        attack: `int64[n]`, index of what it says of the flow.
    """

    keys: np.ndarray
    time_ns: np.ndarray
    attack: np.ndarray


class Events:
    """Events of one kind of key, to be looked up by flow.

    Args:
        attacks: What events say, by precedence.
        events: The events.
        by: BY_ENDS, BY_COMMUNITY_ID or BY_FLOW_ID.
        when: DURING, AT_FIRST or ANYTIME.
        slack_ns: Events may be so much before the flow's first packet, or behind its last.
        names_every_flow: A flow without event is unknown.
    """

    def __init__(
        self,
        attacks: list[Attack],
        events: EventColumns,
        by: str = BY_ENDS,
        when: str = DURING,
        slack_ns: int = 0,
        names_every_flow: bool = False,
    ) -> None:
        self.attacks = attacks
        self.columns = _COLUMNS[by]
        self.names_every_flow = names_every_flow
        self._by, self._when, self._slack_ns = by, when, slack_ns
        self._keys, group = np.unique(events.keys, return_inverse=True)
        times = np.zeros(len(group), np.int64) if when == ANYTIME else events.time_ns
        self._times, rank = np.unique(times, return_inverse=True)
        place = group.reshape(-1) * self._steps + rank.reshape(-1)  # of a key, and of its events by time
        order = np.lexsort((events.attack, place))
        self._places, self._attack = place[order], events.attack[order]
        self._used = np.zeros(len(order), bool)

    @property
    def _steps(self) -> int:
        return len(self._times) + 1

    def claims(self, flows: FlowColumns) -> list[Claims]:
        """Finds the events of each flow."""
        keys = self._keys_of(flows)
        if not len(self._keys) or not len(keys):
            return []
        group = np.searchsorted(self._keys, keys)
        group[group == len(self._keys)] = 0
        rows = np.flatnonzero(self._keys[group] == keys)
        first, last = self._times_of(flows, rows)
        at = group[rows] * self._steps
        begin = np.searchsorted(self._places, at + first, "left")
        end = np.searchsorted(self._places, at + last, "left")
        count = end - begin
        if not count.any():
            return []
        each = np.repeat(np.arange(len(rows)), count)
        events = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count) + begin[each]
        self._used[events] = True
        pairs = np.unique(rows[each] * len(self.attacks) + self._attack[events])
        of, attack = np.divmod(pairs, len(self.attacks))
        return [Claims(of, attack, np.full(len(of), EITHER))]

    def unmatched_events(self) -> np.ndarray:
        """For each attack, events that were in no flow so far."""
        return np.bincount(self._attack[~self._used], minlength=len(self.attacks))

    def _keys_of(self, flows: FlowColumns) -> np.ndarray:
        if self._by == BY_ENDS:
            return ends_keys(flows.src, flows.dst, flows.src_port, flows.dst_port, flows.protocol)
        return id_keys(flows.flows[self.columns[0]])

    def _times_of(self, flows: FlowColumns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ranks among the events' times, from and to, that are the flows' own."""
        if self._when == ANYTIME:
            return np.zeros(len(rows), np.int64), np.ones(len(rows), np.int64)
        if self._when == AT_FIRST:
            start = end = flows.first_ns[rows]
        else:
            start, end = flows.start_ns[rows], flows.end_ns[rows]
        return (
            np.searchsorted(self._times, start - self._slack_ns, "left"),
            np.searchsorted(self._times, end + self._slack_ns, "right"),
        )


def ends_keys(
    src: Networks, dst: Networks, src_port: np.ndarray, dst_port: np.ndarray, protocol: np.ndarray
) -> np.ndarray:
    """Keys of addresses, ports and protocol, whichever end is named first. ICMP has no ports: tools differ in theirs.

    An end that is no address makes a key that no flow has.
    """
    has_ports = ~np.isin(protocol, (ICMP, ICMPV6))
    src_port, dst_port = src_port * has_ports, dst_port * has_ports
    swapped = (src.hi > dst.hi) | (
        (src.hi == dst.hi) & ((src.lo > dst.lo) | ((src.lo == dst.lo) & (src_port > dst_port)))
    )
    keys = np.empty(len(src.hi), _ENDS)
    for side, here, there, port, other in (
        ("low", src, dst, src_port, dst_port),
        ("high", dst, src, dst_port, src_port),
    ):
        keys[side][:, 0] = np.where(swapped, there.hi, here.hi)
        keys[side][:, 1] = np.where(swapped, there.lo, here.lo)
        keys[f"{side}_port"] = np.where(swapped, other, port)
    keys["protocol"] = protocol
    keys["mark"] = np.where((src.length == NO_NETWORK) | (dst.length == NO_NETWORK), _MARK + 1, _MARK)
    return keys.view(f"S{_ENDS.itemsize}").reshape(-1)


def id_keys(ids: pa.Array) -> np.ndarray:
    """Keys of flow ids or Community IDs; of null, a key that no event has."""
    if pa.types.is_fixed_size_binary(ids.type) and not ids.null_count:
        width = ids.type.byte_width
        octets = np.frombuffer(ids.buffers()[1], np.uint8)[ids.offset * width :][: len(ids) * width]
        return _marked(octets.reshape(-1, width))
    texts = np.array(ids.cast(pa.large_binary()).fill_null(b"").to_numpy(False), dtype="S")
    return np.char.add(texts, bytes([_MARK]))


def hex_keys(texts: pa.Array) -> np.ndarray | None:
    """Keys of flow ids that are written in hex; None if some are not of 32 digits."""
    letters = np.array(texts.fill_null("").to_numpy(False), dtype="S")
    if letters.dtype.itemsize != 2 * FLOW_ID_OCTETS:
        return None
    nibbles = _NIBBLES[letters.view(np.uint8).reshape(-1, 2 * FLOW_ID_OCTETS)]
    if (nibbles > 15).any():
        return None
    return _marked(nibbles[:, ::2] << 4 | nibbles[:, 1::2])


def _marked(octets: np.ndarray) -> np.ndarray:
    marked = np.full((len(octets), octets.shape[1] + 1), _MARK, np.uint8)
    marked[:, :-1] = octets
    return marked.view(f"S{marked.shape[1]}").reshape(-1)


def address_numbers(texts: list[str]) -> Networks:
    """The numbers of addresses."""
    return network_numbers(pa.array(texts, pa.string()))
