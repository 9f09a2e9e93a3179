"""Ports for later fragments, from the first fragment of the same packet.

A fragment belongs to the packet with its VLAN, VXLAN or Geneve network, addresses, protocol and identification; ports
are remembered for 30 s of packet time after the first fragment (RFC 1122 section 3.3.2 gives reassembly 60 to 120 s;
an identification of 16 bits returns sooner than that on a fast line).

The table is open addressing over a power of two of entries, in which a key lies within `_PROBES` places of its hash.
It doubles when those places are taken by entries that still count, up to a limit; then the oldest of them gives way.
So what is resolved depends on the packets alone, and memory is bounded.
"""

import numpy as np

from transforms.kernel import kernel, kernel_part
from transforms.records import FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_NONE, FRAGMENT_RESOLVED

REMEMBERED_NS = 30 * 10**9
"""A later fragment this much after its first, or more, has no ports."""

FRAGMENT = np.dtype(
    [
        ("time_ns", "i8"),  # of the first fragment
        ("src_hi", "u8"),
        ("src_lo", "u8"),
        ("dst_hi", "u8"),
        ("dst_lo", "u8"),
        ("fragment_id", "u4"),
        ("vni", "i4"),
        ("vlan_id", "u2"),
        ("src_port", "u2"),
        ("dst_port", "u2"),
        ("protocol", "u1"),
        ("ip_version", "u1"),  # 0: the place was never used
    ],
    align=True,
)
"""What is remembered of a first fragment."""

_PROBES = 16
_SMALLEST, _LARGEST = 1 << 8, 1 << 20


class FragmentTable:
    """Remembers the first fragments of one sensor's packets.

    Attributes:
        unresolved: Later fragments whose first was not seen, or came after them.
        forgotten: First fragments that gave way to others before their 30 s were over, for want of room.
    """

    def __init__(self, largest: int = _LARGEST) -> None:
        """An empty table.

        Args:
            largest: Number of entries, of 56 octets, that it never exceeds; a power of two.
        """
        self.unresolved = 0
        self.forgotten = 0
        self._largest = largest
        self._entries = np.zeros(min(_SMALLEST, largest), FRAGMENT)

    def resolve(self, packets: np.ndarray) -> None:
        """Gives later fragments the ports of their first, in place, and marks them FRAGMENT_RESOLVED.

        Args:
            packets: `PACKET[n]` in time order, after those of earlier calls.
        """
        start = 0
        while True:
            grow = len(self._entries) < self._largest
            start, unresolved, forgotten = _resolve(packets, start, self._entries, grow)
            self.unresolved += unresolved
            self.forgotten += forgotten
            if start == len(packets):
                return
            self._grow(int(packets[start]["time_ns"]))

    def _grow(self, now_ns: int) -> None:
        """Doubles the table until every entry that still counts finds a place, or it is as large as may be."""
        entries = self._entries
        live = entries[(entries["ip_version"] != 0) & (entries["time_ns"] > now_ns - REMEMBERED_NS)]
        refused = len(live)
        while refused and len(self._entries) < self._largest:
            self._entries = np.zeros(2 * len(self._entries), FRAGMENT)
            refused = _insert(live, self._entries)
        self.forgotten += refused


@kernel_part
def _mixed(value):
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel_part
def _home(entries, row):
    """Where the search for the packet of `row`, a fragment or an entry, begins."""
    mixed = _mixed(row.src_hi ^ _mixed(row.src_lo))
    mixed = _mixed(mixed ^ row.dst_hi ^ _mixed(row.dst_lo))
    numbers = (np.uint64(row.fragment_id) << np.uint64(32)) | (np.uint64(row.vlan_id) << np.uint64(16))
    mixed = _mixed(mixed ^ numbers ^ np.uint64(row.protocol) ^ (np.uint64(np.int64(row.vni) + 1) << np.uint64(8)))
    return np.int64(mixed >> np.uint64(1)) & (len(entries) - 1)


@kernel_part
def _is_of(entry, row):
    return (
        entry.fragment_id == row.fragment_id
        and entry.src_lo == row.src_lo
        and entry.dst_lo == row.dst_lo
        and entry.src_hi == row.src_hi
        and entry.dst_hi == row.dst_hi
        and entry.vni == row.vni
        and entry.vlan_id == row.vlan_id
        and entry.protocol == row.protocol
        and entry.ip_version == row.ip_version
    )


@kernel_part
def _place(entries, row, now_ns):
    """The place of the entry for `row`; else ~ of one that is free at `now_ns`; else ~ of the number of entries."""
    home, room = _home(entries, row), len(entries)
    free = room
    for step in range(min(_PROBES, room)):
        place = (home + step) & (room - 1)
        entry = entries[place]
        if entry.ip_version == 0:
            return ~(place if free == room else free)
        if _is_of(entry, row):
            return place
        if free == room and now_ns - entry.time_ns >= REMEMBERED_NS:
            free = place
    return ~free


@kernel_part
def _remember(entries, place, row):
    entry = entries[place]
    entry.time_ns = row.time_ns
    entry.src_hi = row.src_hi
    entry.src_lo = row.src_lo
    entry.dst_hi = row.dst_hi
    entry.dst_lo = row.dst_lo
    entry.fragment_id = row.fragment_id
    entry.vni = row.vni
    entry.vlan_id = row.vlan_id
    entry.src_port = row.src_port
    entry.dst_port = row.dst_port
    entry.protocol = row.protocol
    entry.ip_version = row.ip_version


@kernel_part
def _oldest(entries, row):
    """The place near `row`'s home whose entry was remembered first."""
    home, room = _home(entries, row), len(entries)
    oldest = home
    for step in range(1, min(_PROBES, room)):
        place = (home + step) & (room - 1)
        if entries[place].time_ns < entries[oldest].time_ns:
            oldest = place
    return oldest


@kernel
def _insert(rows, entries):
    """Remembers `rows`, of which none is expired, in a table with room; returns how many found no place."""
    refused = 0
    for i in range(len(rows)):
        row = rows[i]
        place = ~_place(entries, row, row.time_ns)
        if 0 <= place < len(entries):
            _remember(entries, place, row)
        else:
            refused += 1
    return refused


@kernel
def _resolve(packets, start, entries, grow):
    """Resolves from packet `start` on; returns where it stopped for want of room, and counts of what it met."""
    unresolved, forgotten = 0, 0
    for i in range(start, len(packets)):
        if packets[i].fragment == FRAGMENT_NONE:
            continue
        packet = packets[i]
        if packet.fragment == FRAGMENT_FIRST:
            place = _place(entries, packet, packet.time_ns)
            if place < 0:
                place = ~place
            if place == len(entries):
                if grow:
                    return i, unresolved, forgotten
                place = _oldest(entries, packet)
                forgotten += 1
            _remember(entries, place, packet)
        elif packet.fragment == FRAGMENT_LATER:
            place = _place(entries, packet, packet.time_ns)
            if place >= 0 and packet.time_ns - entries[place].time_ns < REMEMBERED_NS:
                packet.src_port = entries[place].src_port
                packet.dst_port = entries[place].dst_port
                packet.fragment = FRAGMENT_RESOLVED
            else:
                unresolved += 1
    return len(packets), unresolved, forgotten
