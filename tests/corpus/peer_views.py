"""What other tools make of a capture, where that is not what the capture says: each peculiarity as a small function.

A difference is explained when our flows of the capture *as the tool sees it* are those of the tool.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sources.capture_file import CaptureFile
from sources.fragments import FragmentTable
from sources.frames import FRAME
from sources.headers import HeaderSettings, parse
from sources.window import Window
from transforms.records import (
    FRAGMENT_LATER,
    PACKET,
    TCP,
    TRANSPORT_TRUNCATED,
    UDP,
    PacketBatch,
    Stream,
)

ETHERNET = 1
VLAN, IPV4, IPV6, MPLS, MPLS_MULTICAST, PPPOE = 0x8100, 0x0800, 0x86DD, 0x8847, 0x8848, 0x8864
SNAP, SPANNING_TREE = 0xAA, 0x42


class Frames(NamedTuple):
    """The records of a capture, in the order of the file.

    Attributes:
        octets: What `rows` point into.
        rows: `FRAME[n]`.
    """

    octets: np.ndarray
    rows: np.ndarray

    def without(self, drop: np.ndarray) -> "Frames":
        """The frames that are not to be dropped."""
        return self._replace(rows=self.rows[~drop])

    def each(self) -> Iterator[bytes]:
        """The captured octets of each."""
        for row in self.rows:
            yield self.octets[row["offset"] : row["offset"] + row["captured"]].tobytes()


class View(NamedTuple):
    """One way in which a tool sees a capture.

    Attributes:
        why: What the tool does, and how that is known.
        content: What the tool reads of the file.
        frames: What it makes of its records.
        packets: What it makes of the packets in time order, before they are assembled.
    """

    why: str
    content: Callable[[bytes], bytes] = bytes
    frames: Callable[[Frames], Frames] = Frames._make
    packets: Callable[[np.ndarray], np.ndarray] = np.array


def seen_through(views: tuple[View, ...], path: Path, headers: HeaderSettings, scratch: Path) -> list[PacketBatch]:
    """The packets of a capture as a tool sees them, in one batch; `scratch` is a file to write to."""
    content = path.read_bytes()
    for view in views:
        content = view.content(content)
    scratch.write_bytes(content)
    frames = _frames(scratch)
    for view in views:
        frames = view.frames(frames)
    packets = np.zeros(len(frames.rows), PACKET)
    reasons = np.zeros(len(frames.rows), np.uint8)
    count, _ = parse(frames.octets, frames.rows, headers, packets, np.zeros(0, np.uint8), reasons)
    packets = packets[:count]
    packets = packets[np.argsort(packets["time_ns"], kind="stable")]
    FragmentTable().resolve(packets)
    for view in views:
        packets = view.packets(packets)
    last_ns = int(packets["time_ns"].max(initial=0))
    return [PacketBatch(Stream("local"), 0, last_ns, packets)]


def _frames(path: Path) -> Frames:
    file = CaptureFile(str(path), Window())
    rows, records = np.zeros(4096, FRAME), np.zeros(4096, np.int64)
    all_rows, all_octets, base = [], [], 0
    try:
        while count := file.index(rows, records):
            octets = file.octets.copy()
            found = rows[:count].copy()
            found["offset"] += base
            all_rows.append(found)
            all_octets.append(octets)
            base += len(octets)
    finally:
        file.close()
    return Frames(np.concatenate([np.zeros(0, np.uint8), *all_octets]), np.concatenate([np.zeros(0, FRAME), *all_rows]))


def first_interface_alone(content: bytes) -> bytes:
    """A pcapng file without the interfaces, and their packets, that libpcap refuses: it gives one link type.

    libpcap 1.10 (sf-pcapng.c) returns an error for an interface of another link type or snap length than the first, for
    a packet of an interface that it refused, and for a section of the other byte order.
    """
    if content[:4] != b"\n\r\r\n":
        return content
    at, kept, first, first_order, interfaces, refused = 0, [], None, "", 0, False
    order = "<"
    while at + 12 <= len(content):
        if content[at : at + 4] == b"\n\r\r\n":
            order = "<" if content[at + 8] == 0x4D else ">"
            first_order = first_order or order
            interfaces, refused = 0, order != first_order
        kind, length = struct.unpack_from(f"{order}II", content, at)
        if length < 12 or at + length > len(content):
            break
        keep = not refused
        if kind == 1:
            link_type, _, snap_length = struct.unpack_from(f"{order}HHI", content, at + 8)
            first = first or (link_type, snap_length)
            keep = keep and (link_type, snap_length) == first
            interfaces += keep
        elif kind in (2, 6):
            keep = keep and struct.unpack_from(f"{order}{'H' if kind == 2 else 'I'}", content, at + 8)[0] < interfaces
        if keep:
            kept.append(content[at : at + length])
        at += length
    return b"".join(kept)


def _ethertypes(frame: bytes) -> Iterator[tuple[int, int]]:
    """(EtherType, where its payload begins), tag by tag."""
    at, kind = 12, VLAN
    while kind == VLAN:
        kind = int.from_bytes(frame[at : at + 2], "big")
        at += 2
        yield kind, at
        at += 2


def without_ip_length_0(frames: Frames) -> Frames:
    """Without IPv4 packets of total length 0, as the hardware gets them that cuts them into segments."""
    return frames.without(np.array([_ip(frame, 4)[2:4] == b"\0\0" for frame in frames.each()], bool))


def whatever_looks_like_ip(frames: Frames) -> Frames:
    """Frames of an unknown EtherType are IP if the next four bits are 4 or 6; then no fragment is looked for."""
    octets = frames.octets.copy()
    drop = np.zeros(len(frames.rows), bool)
    for i, (row, frame) in enumerate(zip(frames.rows, frames.each(), strict=True)):
        *_, (kind, at) = _ethertypes(frame)
        if kind in (IPV4, IPV6, VLAN, MPLS, MPLS_MULTICAST, PPPOE) or (kind < 1536 and SNAP in frame[at : at + 2]):
            continue
        version = frame[at] >> 4 if at < len(frame) else 0
        if (kind < 1536 and SPANNING_TREE in frame[at : at + 2]) or version not in (4, 6):
            drop[i] = True
            continue
        start = int(row["offset"]) + at
        octets[start - 2 : start] = (0x08, 0x00) if version == 4 else (0x86, 0xDD)
        if version == 4:
            octets[start + 6 : start + 8] = 0
    return Frames(octets, frames.rows).without(drop)


def without_pseudowires(frames: Frames) -> Frames:
    """Without MPLS that carries something else than IP."""

    def carries_no_ip(frame: bytes) -> bool:
        *_, (kind, at) = _ethertypes(frame)
        if kind not in (MPLS, MPLS_MULTICAST):
            return False
        while at + 4 < len(frame) and not frame[at + 2] & 1:  # bottom of the stack
            at += 4
        return frame[at + 4 : at + 5] == b"" or frame[at + 4] >> 4 not in (4, 6)

    return frames.without(np.array([carries_no_ip(frame) for frame in frames.each()], bool))


def without_cut_ipv6(frames: Frames) -> Frames:
    """Without IPv6 packets of which fewer octets were captured than their header says."""

    def cut(frame: bytes) -> bool:
        header = _ip(frame, 6)
        return len(header) >= 40 and len(header) < 40 + int.from_bytes(header[4:6], "big")

    return frames.without(np.array([cut(frame) for frame in frames.each()], bool))


def _ip(frame: bytes, version: int) -> bytes:
    """The frame from its IP header on, if it is of this version whatever the EtherType says; else nothing."""
    *_, (kind, at) = _ethertypes(frame)
    return frame[at:] if kind in (IPV4, IPV6) and frame[at : at + 1] and frame[at] >> 4 == version else b""


def clock_never_goes_back(frames: Frames) -> Frames:
    """In the order of the file, each record at least as late as the one before it."""
    rows = frames.rows.copy()
    rows["time_ns"] = np.maximum.accumulate(rows["time_ns"])
    return frames._replace(rows=rows)


def innermost_vlan(frames: Frames) -> Frames:
    """Of several 802.1Q tags the last alone."""
    octets, rows = frames.octets.copy(), frames.rows
    for row, frame in zip(rows, frames.each(), strict=True):
        tags = [at for kind, at in _ethertypes(frame) if kind == VLAN]
        if len(tags) > 1:
            start = int(row["offset"])
            octets[start + tags[0] : start + tags[0] + 2] = octets[start + tags[-1] : start + tags[-1] + 2]
    return Frames(octets, rows)


def no_later_fragments(packets: np.ndarray) -> np.ndarray:
    """First fragments and whole packets alone."""
    return packets[packets["fragment"] < FRAGMENT_LATER]


def lengths_in_16_bits(packets: np.ndarray) -> np.ndarray:
    """Frame lengths modulo 65,536."""
    packets = packets.copy()
    packets["frame_octets"] %= 1 << 16
    return packets


def tcp_and_udp_ports_alone(packets: np.ndarray) -> np.ndarray:
    """Ports 0 for SCTP, DCCP, UDP-Lite."""
    packets = packets.copy()
    other = ~np.isin(packets["protocol"], (TCP, UDP))
    packets["src_port"][other] = packets["dst_port"][other] = 0
    return packets


def ports_of_whole_headers_alone(packets: np.ndarray) -> np.ndarray:
    """Ports 0 where the transport header is cut off."""
    packets = packets.copy()
    cut = packets["transport"] == TRANSPORT_TRUNCATED
    packets["src_port"][cut] = packets["dst_port"][cut] = 0
    return packets
