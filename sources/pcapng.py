"""pcapng captures (draft-ietf-opsawg-pcapng): blocks of many types, in sections that each have their interfaces.

A kernel walks the blocks of a section, interface descriptions and statistics included; Python sees only the headers of
sections. What no reader can interpret is a damage, as in libpcap (sf-pcapng.c) and Wireshark (wiretap/pcapng.c).
"""

import struct
from typing import NamedTuple

import numpy as np

from sources.byte_order import be16, be32, be64, le16, le32, le64
from sources.octets import Unreadable
from sources.pcap import LARGE_LIMIT, LARGE_LINK_TYPES, USUAL_LIMIT
from sources.window import Window
from transforms.kernel import kernel, kernel_part

SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"

INTERFACE = np.dtype(
    [
        ("offset_s", "i8"),  # if_tsoffset: seconds to add to every time
        ("direct_ticks", "u8"),  # times below this one are ns = ticks * direct_ns, no division needed
        ("direct_ns", "u8"),
        ("drops", "u8"),  # the latest isb_ifdrop
        ("limit", "u4"),  # more captured octets than this are a damage
        ("snap_octets", "u4"),  # 0: not limited
        ("link_type", "u2"),
        ("resolution", "u1"),  # if_tsresol: decimal digits, or with bit 7 binary ones
    ],
    align=True,
)
"""One interface description of a section."""

_SECTION, _INTERFACE, _PACKET, _SIMPLE, _STATISTICS, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 5, 6
_IF_TSRESOL, _IF_TSOFFSET, _ISB_IFDROP = 9, 14, 5

_MORE, _PASS_OVER, _NEW_SECTION, _FULL_TABLE = range(4)
_BAD_LENGTH, _BAD_TRAILER, _BAD_OPTIONS, _NO_INTERFACE, _TOO_LONG = range(4, 9)
_DAMAGES = {
    _BAD_LENGTH: "a block with an impossible length",
    _BAD_TRAILER: "a block whose two lengths differ",
    _BAD_OPTIONS: "an interface description whose options run past its end",
    _NO_INTERFACE: "a packet of an interface that is not described",
    _TOO_LONG: "a packet with more octets than the limit of its link type",
}

_NS_PER_S = 1_000_000_000
_LAST_S, _LAST_NS = 9_223_372_036, 854_775_807  # the end of int64 nanoseconds
_FIRST_S, _FIRST_NS = -9_223_372_037, 145_224_192  # and its beginning
_MOST_TIME = np.uint64(2**63 - 1)
_LARGE = np.array(sorted(LARGE_LINK_TYPES), np.int64)


class SectionState(NamedTuple):
    """What must be known to read on in the middle of a section.

    Attributes:
        big_endian: The section's byte order.
        interfaces: The table that the section fills; only ever appended to.
        described: How many rows of it counted at that place.
        last_ns: Time of the packet before; a simple packet has none of its own.
    """

    big_endian: int
    interfaces: np.ndarray
    described: int
    last_ns: int


class BlockFile:
    """Indexes the packets of a pcapng file from its current section state on."""

    name = "pcapng"

    def __init__(self) -> None:
        self._big_endian = 0
        self._interfaces = np.zeros(16, INTERFACE)
        self._cursor = np.zeros(2, np.int64)  # interfaces described; time of the last packet
        self._closed_drops = 0

    def state(self) -> SectionState:
        """See `SectionState`; those of one section share its table."""
        described, last_ns = self._cursor.tolist()
        return SectionState(self._big_endian, self._interfaces, described, last_ns)

    def restore(self, state: object) -> None:
        """Goes on as if everything before `state`, a `SectionState`, was just read."""
        assert isinstance(state, SectionState)
        self._big_endian = state.big_endian
        self._interfaces = np.zeros(max(16, 2 * state.described), INTERFACE)
        self._interfaces[: state.described] = state.interfaces[: state.described]
        self._cursor[:] = state.described, state.last_ns

    @property
    def drops(self) -> int:
        """Packets that interfaces dropped, by the last statistics of each in its section."""
        return self._closed_drops + int(self._interfaces["drops"].sum(dtype=np.uint64))

    def index(self, window: Window, frames: np.ndarray, records: np.ndarray) -> tuple[int, str]:
        """As `pcap.RecordFile.index`."""
        while True:
            count, at, needed, outcome = index_blocks(
                window.octets,
                window.begin,
                window.end,
                self._big_endian,
                self._interfaces,
                self._cursor,
                frames,
                records,
            )
            window.begin = at
            if count:
                return count, ""
            if outcome == _MORE or (outcome == _PASS_OVER and needed <= len(window.octets)):
                if not window.fill(needed):
                    return 0, "" if window.begin == window.end else "the last block is cut off"
            elif outcome == _PASS_OVER:
                damage = _pass_over(window, needed, self._big_endian)
                if damage:
                    return 0, damage
            elif outcome == _NEW_SECTION:
                try:
                    self.open_section(window)
                except Unreadable as reason:
                    return 0, f"a section that {reason}"
            elif outcome == _FULL_TABLE:
                self._interfaces = np.concatenate([self._interfaces, np.zeros_like(self._interfaces)])
            else:
                return 0, _DAMAGES[outcome]

    def open_section(self, window: Window) -> None:
        """Reads a section header; its interfaces are numbered from 0 again."""
        if not window.fill(28):
            raise Unreadable("ends inside its header")
        header = window.octets[window.begin : window.begin + 16].tobytes()
        for order in "<>":
            length, magic, major, minor = struct.unpack(f"{order}4x2I2H", header)
            if magic == 0x1A2B3C4D:
                break
        else:
            raise Unreadable("has no byte order mark")
        if length < 28 or length % 4:
            raise Unreadable(f"has a header of {length} octets")
        if major != 1:
            raise Unreadable(f"is of pcapng version {major}.{minor}; 1.x is known")
        damage = _pass_over(window, length, int(order == ">"))
        if damage:
            raise Unreadable(f"begins with {damage}")
        self._closed_drops = self.drops
        self._big_endian = int(order == ">")
        self._interfaces = np.zeros(16, INTERFACE)
        self._cursor[0] = 0


def open_pcapng(window: Window) -> BlockFile:
    """Reads the first section header; raises `Unreadable` if it is none."""
    file = BlockFile()
    file.open_section(window)
    return file


def _pass_over(window: Window, length: int, big_endian: int) -> str:
    """Passes over a block of any size, holding none of it; returns what is wrong with it."""
    if not window.skip(length - 4) or not window.fill(4):
        return "a block that is cut off"
    trailer = window.octets[window.begin : window.begin + 4].tobytes()
    window.begin += 4
    if int.from_bytes(trailer, "big" if big_endian else "little") != length:
        return _DAMAGES[_BAD_TRAILER]
    return ""


@kernel_part
def _u16(octets, at, big_endian):
    return be16(octets, at) if big_endian else le16(octets, at)


@kernel_part
def _u32(octets, at, big_endian):
    return be32(octets, at) if big_endian else le32(octets, at)


@kernel_part
def _u64(octets, at, big_endian):
    return be64(octets, at) if big_endian else le64(octets, at)


@kernel_part
def _find_option(octets, at, end, big_endian, wanted):
    """Returns (where the value of the option begins or -1, its length); (-2, 0) if options run past the end."""
    found = -1
    found_length = 0
    while at + 4 <= end:
        code = _u16(octets, at, big_endian)
        length = _u16(octets, at + 2, big_endian)
        at += 4
        if code == 0:
            break
        if at + length > end:
            return -2, 0
        if code == wanted and found == -1:
            found = at
            found_length = length
        at += (length + 3) & ~3
    return found, found_length


@kernel_part
def _describe(octets, at, stop, big_endian, interface):
    """Reads the interface description at `at`; False if its options run past its end."""
    link_type = _u16(octets, at + 8, big_endian)
    interface.link_type = link_type
    interface.snap_octets = _u32(octets, at + 12, big_endian)
    interface.limit = USUAL_LIMIT
    for large in _LARGE:
        if link_type == large:
            interface.limit = LARGE_LIMIT
    interface.drops = 0
    resolution = np.int64(6)
    found, length = _find_option(octets, at + 16, stop, big_endian, _IF_TSRESOL)
    if found == -2:
        return False
    if found >= 0 and length >= 1:
        resolution = np.int64(octets[found])
    interface.resolution = resolution
    found, length = _find_option(octets, at + 16, stop, big_endian, _IF_TSOFFSET)
    interface.offset_s = np.int64(_u64(octets, found, big_endian)) if found >= 0 and length == 8 else 0
    interface.direct_ticks = np.uint64(0)
    interface.direct_ns = np.uint64(0)
    if resolution <= 9 and interface.offset_s == 0:
        scale = np.uint64(1)
        for _ in range(9 - resolution):
            scale *= np.uint64(10)
        interface.direct_ns = scale
        interface.direct_ticks = _MOST_TIME // scale + np.uint64(1)
    return True


@kernel_part
def _seconds_and_ns(ticks, resolution):
    """Whole seconds and the ns of the rest, rounded down; both unsigned."""
    zero = np.uint64(0)
    billion = np.uint64(_NS_PER_S)
    if resolution & 128:
        bits = resolution & 127
        seconds = ticks >> np.uint64(bits) if bits < 64 else zero
        rest = ticks & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1)) if bits < 64 else ticks
        if bits <= 32:
            return seconds, (rest * billion) >> np.uint64(bits)
        high = (rest >> np.uint64(32)) * billion
        low = ((rest & np.uint64(0xFFFFFFFF)) * billion) >> np.uint64(32)
        return seconds, (high + low) >> np.uint64(bits - 32) if bits < 96 else zero
    if resolution <= 19:
        units = np.uint64(1)
        for _ in range(resolution):
            units *= np.uint64(10)
        seconds = ticks // units
        rest = ticks % units
    else:
        seconds = zero
        rest = ticks
    if resolution <= 9:
        for _ in range(9 - resolution):
            rest *= np.uint64(10)
    else:
        for _ in range(resolution - 9):
            rest //= np.uint64(10)
    return seconds, rest


@kernel_part
def _capture_time(ticks, interface):
    """(int64 ns since the epoch, 1 if it does not fit)."""
    if ticks < interface.direct_ticks:
        return np.int64(ticks * interface.direct_ns), 0
    seconds, ns = _seconds_and_ns(ticks, np.int64(interface.resolution))
    part = np.int64(ns)
    offset = interface.offset_s
    whole = np.int64(seconds + np.uint64(offset))
    if whole < offset:  # the sum is beyond int64
        return 0, 1
    if whole > _LAST_S or (whole == _LAST_S and part > _LAST_NS):
        return 0, 1
    if whole < _FIRST_S or (whole == _FIRST_S and part < _FIRST_NS):
        return 0, 1
    if whole < 0:  # from the other side, so that the product fits
        return (whole + 1) * _NS_PER_S + (part - _NS_PER_S), 0
    return whole * _NS_PER_S + part, 0


@kernel
def index_blocks(octets, at, end, big_endian, interfaces, cursor, frames, records):
    """Finds the packets of whole blocks in octets[at:end]; describes interfaces, adds statistics.

    Returns (count, where they end, octets needed there, outcome); stops at a new section, a damage, the end.
    """
    count = 0
    room = len(frames)
    while count < room:
        if at + 12 > end:
            return count, at, 12, _MORE
        kind = _u32(octets, at, big_endian)
        if kind == _SECTION:
            return count, at, 0, _NEW_SECTION
        length = _u32(octets, at + 4, big_endian)
        if length < 12 or length & 3:
            return count, at, 0, _BAD_LENGTH
        if at + length > end:
            if kind not in (_ENHANCED, _PACKET, _SIMPLE, _INTERFACE):
                return count, at, length, _PASS_OVER
            if length > LARGE_LIMIT + 65536:
                return count, at, 0, _BAD_LENGTH
            return count, at, length, _MORE
        stop = at + length - 4
        if _u32(octets, stop, big_endian) != length:
            return count, at, 0, _BAD_TRAILER
        described = cursor[0]
        if kind in (_ENHANCED, _PACKET, _SIMPLE):
            simple = kind == _SIMPLE
            if length < (16 if simple else 32):
                return count, at, 0, _BAD_LENGTH
            number = 0
            if kind == _ENHANCED:
                number = _u32(octets, at + 8, big_endian)
            elif kind == _PACKET:
                number = _u16(octets, at + 8, big_endian)
            if number >= described:
                return count, at, 0, _NO_INTERFACE
            interface = interfaces[number]
            begin = at + (12 if simple else 28)
            time_ns = cursor[1]
            damaged = 0
            if simple:
                wire = _u32(octets, at + 8, big_endian)
                captured = min(wire, stop - begin)
                if interface.snap_octets:
                    captured = min(captured, np.int64(interface.snap_octets))
            else:
                ticks = np.uint64(_u32(octets, at + 12, big_endian)) << np.uint64(32)
                ticks |= np.uint64(_u32(octets, at + 16, big_endian))
                captured = _u32(octets, at + 20, big_endian)
                wire = _u32(octets, at + 24, big_endian)
                time_ns, damaged = _capture_time(ticks, interface)
                if damaged:
                    time_ns = cursor[1]
            if captured > interface.limit:
                return count, at, 0, _TOO_LONG
            if begin + captured > stop:
                return count, at, 0, _BAD_LENGTH
            cursor[1] = time_ns
            frame = frames[count]
            frame.time_ns = time_ns
            frame.offset = begin
            frame.captured = captured
            frame.frame_octets = wire
            frame.link_type = interface.link_type
            frame.damaged = damaged
            records[count] = at
            count += 1
        elif kind == _INTERFACE:
            if length < 20:
                return count, at, 0, _BAD_LENGTH
            if described == len(interfaces):
                return count, at, 0, _FULL_TABLE
            if not _describe(octets, at, stop, big_endian, interfaces[described]):
                return count, at, 0, _BAD_OPTIONS
            cursor[0] = described + 1
        elif kind == _STATISTICS and length >= 24:
            number = _u32(octets, at + 8, big_endian)
            found, size = _find_option(octets, at + 20, stop, big_endian, _ISB_IFDROP)
            if number < described and found >= 0 and size == 8:
                interfaces[number].drops = _u64(octets, found, big_endian)
        at += length
    return count, at, 0, _MORE
