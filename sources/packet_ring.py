"""One packet ring of Linux: an AF_PACKET socket whose packets arrive in memory that we share with the kernel.

Linux writes packets into blocks of the ring (TPACKET_V3) and hands a block over when it is full or some time old; they
are parsed where they lie. Everything here is `packet(7)`, but for the ring's layout, which is in `ring_blocks`.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import sys
from collections import Counter
from typing import NamedTuple

import numpy as np

from sources.bpf import INSTRUCTION
from sources.frames import FRAME
from sources.headers import REASONS, HeaderSettings, parse
from sources.ring_blocks import LEAST_PACKET_OCTETS, release_blocks, restore_tags, walk_blocks
from sources.rows import Rows
from transforms.records import PACKET, InputError

BLOCK_OCTETS = 1 << 20
"""Size of a block of a ring: a frame never reaches over the end of one, and the longest have half a mebibyte."""

FANOUT_MODES = {"hash": 0, "balance": 1, "cpu": 2, "queue": 5}
"""How Linux spreads packets over rings: by flow, in turn, by the core or the card's queue that received them."""

LINK_TYPES = {1: 1, 772: 1, 519: 101, 768: 101, 769: 101, 776: 101, 65534: 101}
"""ARPHRD_* of an interface to LINKTYPE_* of its frames: Ethernet, loopback, and tunnels that carry plain IP."""

_OTHER_LINK_TYPES = {
    24: "IEEE 1394", 32: "InfiniBand", 280: "CAN", 512: "PPP", 513: "HDLC", 770: "frame relay", 778: "GRE",
    801: "Wi-Fi in monitor mode", 802: "Wi-Fi in monitor mode", 803: "Wi-Fi in monitor mode", 824: "netlink",
    823: "GRE over IPv6",
}  # fmt: skip

_LOOPBACK = 772
_ETH_P_ALL = 3
_SOL_PACKET, _SO_ATTACH_FILTER = 263, 26
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION, _FANOUT = 1, 5, 6, 10, 18
_TPACKET_V3 = 2
_PROMISCUOUS = 1
_UNIQUE_GROUP = 0x2000 << 16  # Linux chooses a number for the group (4.12 and later)
_GET_NAME, _GET_FLAGS, _GET_HARDWARE = 0x8910, 0x8913, 0x8927
_IFF_UP = 1
_NAME_OCTETS = 16
_FRAME_OCTETS = 2048  # of the ring's geometry only: blocks are filled without regard to it
_PACKETS_AT_ONCE = 1 << 15
_NOTHING = Rows(np.empty(0, PACKET), np.empty(0, np.uint8))

_LOAD_PACKET_TYPE = (0x28, 0, 0, 0xFFFFF000 + 4)  # ldh: what kind of packet it is, from Linux's own memory
_IF_OUTGOING = (0x15, 0, 1, 4)
_RETURN = 0x06


class RingSettings(NamedTuple):
    """How a ring is set up.

    Attributes:
        octets: Its memory.
        block_ms: A block that is not full is handed over after so long.
        promiscuous: Whether the card passes on what is for others.
        program: `INSTRUCTION[n]`: what Linux keeps of each packet.
        headers: What of a packet is kept in its row.
    """

    octets: int
    block_ms: int
    promiscuous: bool
    program: np.ndarray
    headers: HeaderSettings


class Taken(NamedTuple):
    """What lay ready in a ring.

    Attributes:
        rows: Packets, in the order of the ring.
        rejects: Packets that are no rows: counts by reason.
        last_ns: Time of the last packet, row or not; 0 if there was none.
        drained: Whether Linux had no more at that moment.
    """

    rows: Rows
    rejects: Counter[str]
    last_ns: int
    drained: bool


def open_socket(name: str) -> socket.socket:
    """A socket for packets that receives nothing yet.

    Raises:
        InputError: The capability to capture is missing, or this is not Linux.
    """
    if not hasattr(socket, "AF_PACKET"):
        raise InputError(f"interface:{name}: live capture needs Linux; capture to a file and give that")
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except PermissionError as error:
        python = os.path.realpath(sys.executable)
        raise InputError(
            f"interface:{name}: no permission to capture: run as root, or give CAP_NET_RAW, in a systemd unit by "
            f"`AmbientCapabilities=CAP_NET_RAW`, at a shell by `setcap cap_net_raw+ep {python}`"
        ) from error


def interface_index(sock: socket.socket, name: str) -> int:
    """The number of an interface, which stays when it is renamed; raises `InputError` if there is none."""
    try:
        return int(struct.unpack_from("i", _ask(sock, 0x8933, name), _NAME_OCTETS)[0])
    except OSError as error:
        known = ", ".join(other for _, other in socket.if_nameindex())
        raise InputError(f"interface:{name}: there is no such interface; there are {known}") from error


def link_type(sock: socket.socket, name: str) -> tuple[int, bool]:
    """LINKTYPE_* of an interface's frames, and whether it is the loopback; raises `InputError` if they are not read."""
    hardware = struct.unpack_from("H", _ask(sock, _GET_HARDWARE, name), _NAME_OCTETS)[0]
    if hardware not in LINK_TYPES:
        kind = _OTHER_LINK_TYPES.get(hardware, "of a kind that is not known")
        raise InputError(
            f"interface:{name}: is {kind} (ARPHRD {hardware}); Ethernet, loopback and IP tunnels can be captured live"
        )
    return LINK_TYPES[hardware], hardware == _LOOPBACK


def is_there(sock: socket.socket, index: int) -> bool:
    """Whether the interface exists, by whatever name."""
    try:
        fcntl.ioctl(sock, _GET_NAME, struct.pack("16xi20x", index))
    except OSError:
        return False
    return True


def is_up(sock: socket.socket, index: int) -> bool:
    """Whether the interface exists and is up."""
    try:
        named = fcntl.ioctl(sock, _GET_NAME, struct.pack("16xi20x", index))
        flags = fcntl.ioctl(sock, _GET_FLAGS, named[:_NAME_OCTETS] + bytes(24))
    except OSError:
        return False
    return bool(struct.unpack_from("H", flags, _NAME_OCTETS)[0] & _IFF_UP)


def _ask(sock: socket.socket, request: int, name: str) -> bytes:
    octets = name.encode()
    if len(octets) >= _NAME_OCTETS:
        raise OSError(errno.ENODEV, "the name is too long for an interface")
    return fcntl.ioctl(sock, request, octets.ljust(40, b"\0"))


def keep_all(snaplen: int) -> np.ndarray:
    """The program that keeps the first `snaplen` octets of every packet."""
    return np.array([(_RETURN, 0, 0, snaplen)], INSTRUCTION)


def without_outgoing(program: np.ndarray) -> np.ndarray:
    """A program that first refuses what leaves: a loopback shows every packet twice, once in each direction."""
    refuse = [_LOAD_PACKET_TYPE, _IF_OUTGOING, (_RETURN, 0, 0, 0)]
    return np.concatenate([np.array(refuse, INSTRUCTION), program])


class PacketRing:
    """A socket that captures from one interface, and the memory that its packets arrive in.

    Attributes:
        socket: To wait for: it is readable when a block was handed over.
    """

    def __init__(self, sock: socket.socket, name: str, index: int, link_type: int, settings: RingSettings) -> None:
        """Takes over the socket; it receives from `start` on."""
        self.socket = sock
        self._name = name
        self._index = index
        self._link_type = link_type
        self._settings = settings
        self._next = 0
        blocks = max(2, settings.octets // BLOCK_OCTETS)
        frames = blocks * (BLOCK_OCTETS // _FRAME_OCTETS)
        request = (BLOCK_OCTETS, blocks, _FRAME_OCTETS, frames, settings.block_ms, 0, 0)
        self._attach(keep_all(0))
        try:
            sock.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
            sock.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("7I", *request))
            self._memory = mmap.mmap(sock.fileno(), blocks * BLOCK_OCTETS)
        except OSError as error:
            raise InputError(
                f"interface:{name}: Linux gives no ring of {blocks} MiB ({error.strerror}); set a smaller --ring_octets"
            ) from error
        self._octets = np.frombuffer(self._memory, np.uint8)
        self._words, self._halves = self._octets.view(np.uint32), self._octets.view(np.uint16)
        room = max(_PACKETS_AT_ONCE, BLOCK_OCTETS // LEAST_PACKET_OCTETS)
        self._frames = np.zeros(room, FRAME)
        self._tags = np.zeros(room, np.uint32)
        self._reasons = np.zeros(room, np.uint8)
        self.take()  # all that is compiled is there before the first packet
        self._parsed(0, True)

    def join(self, group: int | None, fanout: str) -> int:
        """Binds to the interface and shares its packets with the other rings of a group.

        Args:
            group: Its number; None makes a new one.
            fanout: One of `FANOUT_MODES`.

        Returns:
            The number of the group.
        """
        self.bind()
        argument = FANOUT_MODES[fanout] << 16 | (_UNIQUE_GROUP if group is None else group)
        self.socket.setsockopt(_SOL_PACKET, _FANOUT, struct.pack("I", argument))
        return self.socket.getsockopt(_SOL_PACKET, _FANOUT) & 0xFFFF

    def bind(self) -> None:
        """Binds to the interface; what arrives is refused until `start`, so that no ring sees what is another's."""
        try:
            self.socket.bind((self._name, _ETH_P_ALL))
        except OSError as error:
            raise InputError(f"interface:{self._name}: cannot be captured from: {error.strerror}") from error
        if self._settings.promiscuous:
            request = struct.pack("iHH8x", self._index, _PROMISCUOUS, 0)
            self.socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)

    def start(self) -> None:
        """Lets in what the program of the settings accepts; raises `InputError` if Linux does not take it."""
        try:
            self._attach(self._settings.program)
        except OSError as error:
            raise InputError(
                f"interface:{self._name}: Linux does not take this --filter ({error.strerror}): it is too long, or has "
                f"`protochain`"
            ) from error

    def _attach(self, program: np.ndarray) -> None:
        octets = ctypes.create_string_buffer(program.tobytes())
        self.socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(octets))
        )

    def take(self) -> Taken:
        """Parses what lies ready and gives its memory back to Linux; does not wait."""
        count, blocks, tagged, drained = walk_blocks(
            self._words, self._halves, self._next, BLOCK_OCTETS, self._link_type, self._frames, self._tags
        )
        rows, rejects = self._parsed(count, tagged) if count else (_NOTHING, Counter[str]())
        release_blocks(self._words, self._next, blocks, BLOCK_OCTETS)
        self._next = (self._next + blocks) % (len(self._octets) // BLOCK_OCTETS)
        return Taken(rows, rejects, int(self._frames["time_ns"][count - 1]) if count else 0, drained)

    def _parsed(self, count: int, tagged: bool) -> tuple[Rows, Counter[str]]:
        headers = self._settings.headers
        packets, payloads = np.empty(count, PACKET), np.empty(count * headers.payload_octets, np.uint8)
        reasons = self._reasons[:count]
        accepted, octets = parse(self._octets, self._frames[:count], headers, packets, payloads, reasons)
        if tagged:
            restore_tags(packets, reasons, self._tags[:count])
        numbers = np.bincount(reasons, minlength=len(REASONS)).tolist()
        rejects = Counter({REASONS[i]: number for i, number in enumerate(numbers) if i and number})
        return Rows(packets[:accepted], payloads[:octets]), rejects

    def newly_dropped(self) -> int:
        """Packets that found no room in the ring since this was last asked."""
        _, dropped, _ = struct.unpack("3I", self.socket.getsockopt(_SOL_PACKET, _STATISTICS, 12))
        return int(dropped)

    def error(self) -> int:
        """What went wrong with the interface since this was last asked, ENETDOWN for one; 0 for nothing."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self) -> None:
        """Gives the memory back and closes the socket."""
        self._octets = self._words = self._halves = np.empty(0, np.uint8)
        self._memory.close()
        self.socket.close()
