"""Filters in libpcap's language, `tcp port 80`: compiled by libpcap, run here by a kernel, or by Linux on a socket.

libpcap makes a program for the classic BPF machine (`pcap-filter(7)`; the machine: McCanne and Jacobson, "The BSD
Packet Filter", 1993). A live line gives it to Linux, so that what it refuses costs nothing; frames of a file are judged
by `accepts`, block by block, exactly as libpcap's own `pcap_offline_filter` would.
"""

import ctypes
from functools import cache
from typing import Any

import numpy as np

from sources.byte_order import be16, be32
from transforms.kernel import kernel, kernel_part
from transforms.records import InputError

INSTRUCTION = np.dtype([("code", "u2"), ("if_true", "u1"), ("if_false", "u1"), ("value", "u4")])
"""One instruction, as libpcap's `bpf_insn` and Linux's `sock_filter` have it."""

WHOLE_PACKETS = 262_144
"""Octets of a packet to capture: more than any has, tcpdump's own default."""

_DLT_RAW = 12
_DATA_LINKS = {14: _DLT_RAW, 101: _DLT_RAW, 100: 11, 106: 19}
"""LINKTYPE_* numbers of files whose DLT_* number differs on Linux; all others are equal."""

_LIBRARIES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.dylib")
_NETMASK_UNKNOWN = 0xFFFFFFFF
_ERROR_OCTETS = 256


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


@cache
def _libpcap() -> Any:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = library.pcap_create.restype = ctypes.c_void_p
        library.pcap_geterr.restype = ctypes.c_char_p
        for function in (library.pcap_geterr, library.pcap_activate, library.pcap_datalink, library.pcap_close):
            function.argtypes = (ctypes.c_void_p,)
        library.pcap_create.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        library.pcap_set_snaplen.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.pcap_compile.argtypes = (
            ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32
        )  # fmt: skip
        return library
    raise InputError(
        "--filter: libpcap is not installed; `apt install libpcap0.8` (Debian, Ubuntu) or `dnf install libpcap`"
    )


def compile_filter(expression: str, link_type: int, snaplen: int = WHOLE_PACKETS) -> np.ndarray:
    """The program of an expression for frames of one link type: `INSTRUCTION[n]`.

    Args:
        expression: As `tcpdump` takes it; see `pcap-filter(7)`.
        link_type: LINKTYPE_* of the frames.
        snaplen: What the program returns for a packet that it accepts: as many octets of it are kept.

    Raises:
        InputError: libpcap is missing, or does not understand the expression.
    """
    library = _libpcap()
    handle = library.pcap_open_dead(_DATA_LINKS.get(link_type, link_type), snaplen)
    try:
        return _compiled(handle, expression)
    finally:
        library.pcap_close(handle)


def compile_live_filter(expression: str, interface: str, link_type: int, snaplen: int = WHOLE_PACKETS) -> np.ndarray:
    """As `compile_filter`, for what Linux hands over from an interface.

    Linux takes the outermost VLAN tag out of a frame and keeps it beside: libpcap knows it only of a live line. `vlan`
    in an expression then looks there too.
    """
    library = _libpcap()
    handle = library.pcap_create(interface.encode(), ctypes.create_string_buffer(_ERROR_OCTETS))
    try:
        library.pcap_set_snaplen(handle, snaplen)
        if library.pcap_activate(handle) < 0 or library.pcap_datalink(handle) != _DATA_LINKS.get(link_type, link_type):
            return compile_filter(expression, link_type, snaplen)
        return _compiled(handle, expression)
    finally:
        library.pcap_close(handle)


def _compiled(handle: int, expression: str) -> np.ndarray:
    library = _libpcap()
    program = _Program()
    if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _NETMASK_UNKNOWN):
        reason = library.pcap_geterr(handle).decode(errors="replace")
        raise InputError(f"--filter {expression!r}: {reason}; the language is described in `man pcap-filter`")
    try:
        octets = ctypes.string_at(program.instructions, program.length * INSTRUCTION.itemsize)
    finally:
        library.pcap_freecode(ctypes.byref(program))
    return np.frombuffer(octets, INSTRUCTION)


class PacketFilter:
    """An expression over frames of any link types; it is compiled for each when that is first met."""

    def __init__(self, expression: str) -> None:
        """Checks the expression for Ethernet; raises `InputError` as `compile_filter` does."""
        self._expression = expression
        self._programs = {1: compile_filter(expression, 1)}

    def accepts(self, octets: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Which of `FRAME[n]` in the buffer `octets` pass: `bool[n]`."""
        link_types = frames["link_type"]
        if len(frames) and (link_types == link_types[0]).all():
            return accepts(octets, frames, self._program(int(link_types[0])))
        accepted = np.zeros(len(frames), np.bool_)
        for link_type in np.unique(link_types).tolist():
            chosen = link_types == link_type
            accepted[chosen] = accepts(octets, frames[chosen], self._program(link_type))
        return accepted

    def _program(self, link_type: int) -> np.ndarray:
        if link_type not in self._programs:
            try:
                self._programs[link_type] = compile_filter(self._expression, link_type)
            except InputError as error:
                raise InputError(f"{error} (packets of link type {link_type})") from error
        return self._programs[link_type]


def accepts(octets: np.ndarray, frames: np.ndarray, program: np.ndarray) -> np.ndarray:
    """Which frames a program accepts; one that does not lie in the buffer is left to the header parser.

    Args:
        octets: `u1[m]`, the buffer that the frames lie in.
        frames: `FRAME[n]`, all of the link type that the program is for.
        program: `INSTRUCTION[k]`, from `compile_filter`.

    Returns:
        `bool[n]`.
    """
    octets, frames, program = octets.view(), frames.view(), program.view()
    octets.flags.writeable = frames.flags.writeable = program.flags.writeable = False  # one compiled kernel for all
    accepted = np.empty(len(frames), np.bool_)
    _judge(octets, frames, program, accepted)
    return accepted


# --- the machine: an accumulator, an index register and sixteen numbers of 32 bits --------------------------------

_CLASS, _MODE, _SIZE, _OPERATION = 0x07, 0xE0, 0x18, 0xF0
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_IMMEDIATE, _ABSOLUTE, _INDIRECT, _MEMORY, _LENGTH, _HEADER_LENGTH = (mode << 5 for mode in range(6))
_WORD, _HALF = 0x00, 0x08
_OF_INDEX = 0x08  # the second operand is the index register, not the instruction's value
_OF_ACCUMULATOR = 0x10  # what RET returns
_TO_ACCUMULATOR = 0x80  # MISC: TXA, otherwise TAX
_ADD, _SUB, _MUL, _DIV, _OR, _AND, _LEFT, _RIGHT, _NEGATE, _MODULO, _XOR = (number << 4 for number in range(11))
_ALWAYS, _EQUAL, _GREATER, _GREATER_OR_EQUAL, _BITS = (number << 4 for number in range(5))
_BITS_32 = 0xFFFFFFFF
_MEMORY_CELLS = 16


@kernel_part
def _computed(operation, left, right):
    """The result of an ALU instruction, of 32 bits; a division by zero is told by -1."""
    if operation == _ADD:
        return (left + right) & _BITS_32
    if operation == _SUB:
        return (left - right) & _BITS_32
    if operation == _MUL:
        return (left * right) & _BITS_32
    if operation == _AND:
        return left & right
    if operation == _OR:
        return left | right
    if operation == _XOR:
        return left ^ right
    if operation == _LEFT:
        return (left << right) & _BITS_32 if right < 32 else 0
    if operation == _RIGHT:
        return left >> right if right < 32 else 0
    if operation == _NEGATE:
        return (-left) & _BITS_32
    if right == 0:
        return -1
    return left // right if operation == _DIV else left % right


@kernel_part
def _holds(operation, left, right):
    """Whether a jump's condition is true."""
    if operation == _EQUAL:
        return left == right
    if operation == _GREATER:
        return left > right
    if operation == _GREATER_OR_EQUAL:
        return left >= right
    return left & right != 0


@kernel_part
def _loaded(octets, start, captured, at, size):
    """A number of the packet, in network order; -1 where it is not wholly captured."""
    octets_wanted = 4 if size == _WORD else 2 if size == _HALF else 1
    if at + octets_wanted > captured:
        return -1
    if size == _WORD:
        return be32(octets, start + at)
    if size == _HALF:
        return be16(octets, start + at)
    return np.int64(octets[start + at])


@kernel_part
def _verdict(octets, start, captured, wire, program, memory):
    """What the program returns for one packet: 0 refuses it. A load beyond what was captured refuses it too."""
    accumulator = index = np.int64(0)
    counter = 0
    while counter < len(program):
        instruction = program[counter]
        code, value = np.int64(instruction.code), np.int64(instruction.value)
        counter += 1
        kind, mode = code & _CLASS, code & _MODE
        if kind == _LD:
            if mode == _ABSOLUTE or mode == _INDIRECT:
                at = value if mode == _ABSOLUTE else value + index
                accumulator = _loaded(octets, start, captured, at, code & _SIZE)
                if accumulator < 0:
                    return 0
            elif mode == _IMMEDIATE:
                accumulator = value
            else:
                accumulator = wire if mode == _LENGTH else memory[value & (_MEMORY_CELLS - 1)]
        elif kind == _LDX:
            if mode == _HEADER_LENGTH:
                if value >= captured:
                    return 0
                index = (np.int64(octets[start + value]) & 15) << 2
            elif mode == _IMMEDIATE:
                index = value
            else:
                index = wire if mode == _LENGTH else memory[value & (_MEMORY_CELLS - 1)]
        elif kind == _ST:
            memory[value & (_MEMORY_CELLS - 1)] = accumulator
        elif kind == _STX:
            memory[value & (_MEMORY_CELLS - 1)] = index
        elif kind == _ALU:
            accumulator = _computed(code & _OPERATION, accumulator, index if code & _OF_INDEX else value)
            if accumulator < 0:
                return 0
        elif kind == _JMP:
            if code & _OPERATION == _ALWAYS:
                counter += np.int64(np.int32(value))  # `protochain` jumps back
            elif _holds(code & _OPERATION, accumulator, index if code & _OF_INDEX else value):
                counter += np.int64(instruction.if_true)
            else:
                counter += np.int64(instruction.if_false)
        elif kind == _RET:
            return accumulator if code & _SIZE == _OF_ACCUMULATOR else value
        elif code & _TO_ACCUMULATOR:
            accumulator = index
        else:
            index = accumulator
    return 0


@kernel
def _judge(octets, frames, program, accepted):
    memory = np.zeros(_MEMORY_CELLS, np.int64)
    for i in range(len(frames)):
        start, captured = frames[i].offset, np.int64(frames[i].captured)
        outside = start < 0 or start + captured > len(octets)
        wire = np.int64(frames[i].frame_octets)
        accepted[i] = outside or _verdict(octets, start, captured, wire, program, memory) != 0
