"""Captures with one header at the front and records of one shape behind it: pcap, and snoop (RFC 1761).

pcap is described in draft-ietf-opsawg-pcap; files older than version 2.4 have the two lengths of a record in the
other order, which libpcap (sf-pcap.c) and we put right.
"""

import struct
from typing import NamedTuple

import numpy as np

from sources.byte_order import be32, le32
from sources.octets import Unreadable
from sources.window import Window
from transforms.kernel import kernel, kernel_part

RECORD_WHOLE, RECORD_TOO_LONG, RECORD_IMPOSSIBLE = range(3)
"""Outcome of indexing: fine so far; more octets captured than the format allows; lengths that contradict each other."""

UNKNOWN_LINK_TYPE = 0xFFFF

_NS_PER_S = 1_000_000_000
_MAGICS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
_OTHER_MAGICS = {
    0xA1B2CD34: "pcap as Kuznetzov's patch wrote it",
    0xA1E2CB12: "pcap as Navtel's tools write it",
    0xA1B234CD: "pcap as Alcatel's AIX patch wrote it",
    0x1C0001AC: "IXIA lcap with hardware times",
    0x1C0001AB: "IXIA lcap with software times",
}
_IN_ORDER, _SWAPPED, _PERHAPS_SWAPPED = range(3)
_SNOOP_LINK_TYPES = {0: 1, 1: 5, 2: 6, 4: 1, 8: 10, 18: 123}  # RFC 1761 and OpenSolaris → LINKTYPE_*

LARGE_LIMIT = 128 << 20
LARGE_LINK_TYPES = frozenset({189, 220, 231, 249, 266})  # USB and D-Bus, where libpcap too allows for more
USUAL_LIMIT = 262_144


def captured_limit(link_type: int) -> int:
    """The most octets of one packet that a sane capture has: libpcap's and Wireshark's limit for the link type."""
    return LARGE_LIMIT if link_type in LARGE_LINK_TYPES else USUAL_LIMIT


class Shape(NamedTuple):
    """What the kernel has to know of the file: plain numbers."""

    header_octets: int
    big_endian: int
    ns_per_unit: int
    link_type: int
    limit: int
    lengths: int
    snoop: int


class RecordFile:
    """Indexes the records of a pcap or snoop file. The same at any place of the file: it has no state."""

    def __init__(self, name: str, shape: Shape) -> None:
        self.name = name
        self._shape = shape

    def state(self) -> object:
        """Nothing: a record can be read without those before it."""
        return None

    def restore(self, state: object) -> None:
        """See `state`."""

    @property
    def drops(self) -> int:
        """Packets that the interface dropped; these formats do not say."""
        return 0

    def index(self, window: Window, frames: np.ndarray, records: np.ndarray) -> tuple[int, str]:
        """Finds packets from the window's beginning on and moves it behind them.

        Returns:
            How many rows of `frames` and `records` (index of the record in the window) were filled, which is 0 at
            the end or at a damage, and what the damage is.
        """
        if not window.fill(self._shape.header_octets):  # not even the kernel is loaded for a file without packets
            return self._end(window)
        while True:
            count, at, needed, outcome = index_records(
                window.octets, window.begin, window.end, frames, records, *self._shape
            )
            window.begin = at
            if count:
                return count, ""
            if outcome == RECORD_TOO_LONG:
                return 0, f"a packet of more than {self._shape.limit} octets"
            if outcome == RECORD_IMPOSSIBLE:
                return 0, "a record that is shorter than its packet"
            if not window.fill(needed):
                return self._end(window)

    @staticmethod
    def _end(window: Window) -> tuple[int, str]:
        return 0, "" if window.begin == window.end else "the last packet record is cut off"


def open_pcap(window: Window) -> RecordFile:
    """Reads the file header of a pcap.

    Raises:
        Unreadable: It is another format, a variant without a description, or cut off.
    """
    start = window.octets[window.begin : window.begin + 4].tobytes()
    for order in "<>":
        magic = struct.unpack(f"{order}I", start)[0]
        if magic in _OTHER_MAGICS:
            raise Unreadable(f"is {_OTHER_MAGICS[magic]}, which is not supported; convert it with editcap -F pcap")
        if magic in _MAGICS:
            return _open_pcap(window, order, _MAGICS[magic])
    raise Unreadable(f"is not a capture file (it begins with {start.hex(' ')})")


def _open_pcap(window: Window, order: str, ns_per_unit: int) -> RecordFile:
    if not window.fill(24):
        raise Unreadable("ends inside its file header")
    header = window.octets[window.begin : window.begin + 24].tobytes()
    major, minor, _, _, _, link = struct.unpack(f"{order}4x2H4I", header)
    window.begin += 24
    if major == 2 or (major, minor) == (543, 0):
        lengths = _IN_ORDER if major == 2 and minor > 3 else _PERHAPS_SWAPPED if (major, minor) == (2, 3) else _SWAPPED
    else:
        raise Unreadable(f"is pcap of version {major}.{minor}; 2.0 to 2.4 are known")
    link_type = link & 0xFFFF  # above are the length of a frame check sequence and reserved bits
    shape = Shape(16, int(order == ">"), ns_per_unit, link_type, captured_limit(link_type), lengths, 0)
    return RecordFile("pcap", shape)


def open_snoop(window: Window) -> RecordFile:
    """Reads the file header of a Solaris snoop capture; raises `Unreadable` as `open_pcap` does."""
    if not window.fill(16):
        raise Unreadable("ends inside its file header")
    version, datalink = struct.unpack(">8x2I", window.octets[window.begin : window.begin + 16].tobytes())
    window.begin += 16
    if version != 2:
        raise Unreadable(f"is snoop of version {version}; 2 is known")
    link_type = _SNOOP_LINK_TYPES.get(datalink, UNKNOWN_LINK_TYPE)
    return RecordFile("snoop", Shape(24, 1, 1000, link_type, USUAL_LIMIT, _IN_ORDER, 1))


@kernel_part
def u32(octets, at, big_endian):
    """The four octets at `at` as a number, in the byte order of the file."""
    return be32(octets, at) if big_endian else le32(octets, at)


@kernel
def index_records(
    octets, at, end, frames, records, header_octets, big_endian, ns_per_unit, link_type, limit, lengths, snoop
):
    """Finds whole records in octets[at:end]; returns (their count, where they end, octets needed there, outcome)."""
    count = 0
    room = len(frames)
    while count < room:
        if at + header_octets > end:
            return count, at, header_octets, RECORD_WHOLE
        if snoop:
            wire = u32(octets, at, 1)
            captured = u32(octets, at + 4, 1)
            record = u32(octets, at + 8, 1)
            seconds = u32(octets, at + 16, 1)
            units = u32(octets, at + 20, 1)
        else:
            seconds = u32(octets, at, big_endian)
            units = u32(octets, at + 4, big_endian)
            captured = u32(octets, at + 8, big_endian)
            wire = u32(octets, at + 12, big_endian)
            if lengths == _SWAPPED or (lengths == _PERHAPS_SWAPPED and captured > wire):
                captured, wire = wire, captured
            record = captured + header_octets
        if captured > limit:
            return count, at, 0, RECORD_TOO_LONG
        if record < captured + header_octets or record > limit + 4096:
            return count, at, 0, RECORD_IMPOSSIBLE
        if at + record > end:
            return count, at, record, RECORD_WHOLE
        frame = frames[count]
        frame.time_ns = seconds * _NS_PER_S + units * ns_per_unit
        frame.offset = at + header_octets
        frame.captured = captured
        frame.frame_octets = wire
        frame.link_type = link_type
        frame.damaged = 0
        records[count] = at
        count += 1
        at += record
    return count, at, 0, RECORD_WHOLE
