"""Filters: what libpcap compiles, and that the kernel judges packets as libpcap itself does."""

import ctypes

import numpy as np
import pytest
from frames_testing import CARRIERS, SNAP, TUNNELS, ethernet, ipv4, ipv6, tcp, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import bpf, frames
from transforms.records import InputError

EXPRESSIONS = (
    "tcp", "udp port 5678", "tcp port 80", "port 80 or port 53", "not tcp", "ip6", "arp", "vlan", "vlan 7 and ip",
    "host 10.1.2.3", "src net 10.0.0.0/8", "dst net 192.168.0.0/16", "net 2001:db8::/32", "ip6 host 2001:db8::1",
    "ether host 02:00:00:00:00:01", "ether broadcast or ether multicast", "greater 100", "less 60", "len > 70",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[13] = 0x18", "ip[8] > 63", "ip[2:2] > 40", "udp[4:2] >= 11",
    "ip[6:2] & 0x1fff = 0", "portrange 1-1024", "tcp src portrange 1000-2000", "icmp or icmp6", "ip proto 47",
    "ip6 protochain 17", "ip protochain 6", "(tcp or udp) and not port 443", "ether proto 0x0800", "mpls", "pppoes",
    "ip[0] & 0xf != 5", "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x61626300", "ether[0] & 1 = 0", "ip[2:2] % 7 = 3",
    "ip[2:2] / 8 = 5", "ip[2:2] ^ 3 < 50", "ip[2:2] * 3 - len > 10", "ip multicast",
    "1 = 1", "ip[100] = 1", "ip6[6] = 17", "sctp", "llc", "ether[12:2] < 1500", "1 / (len - len) = 0",
)  # fmt: skip


class _Header(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_long),
        ("us", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("wire", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


try:
    LIBPCAP = bpf._libpcap()
except InputError:
    pytest.skip("libpcap is not installed", allow_module_level=True)


def libpcap_accepts(packets, program, wire=None):
    """What `pcap_offline_filter` says of each packet."""
    octets = program.tobytes()
    held = _Program(len(program), ctypes.cast(ctypes.create_string_buffer(octets, len(octets)), ctypes.c_void_p))
    found = []
    for i, packet in enumerate(packets):
        header = _Header(0, 0, len(packet), len(packet) if wire is None else wire[i])
        found.append(LIBPCAP.pcap_offline_filter(ctypes.byref(held), ctypes.byref(header), packet) != 0)
    return found


def kernel_accepts(packets, program, wire=None, link_type=1):
    """What the kernel says, of packets that lie close to each other in one buffer."""
    rows = frame_rows(packets, wire, link_type)
    return bpf.accepts(np.frombuffer(b"".join(packets), np.uint8), rows, program).tolist()


def frame_rows(packets, wire=None, link_type=1):
    rows = np.zeros(len(packets), frames.FRAME)
    rows["captured"] = [len(packet) for packet in packets]
    rows["offset"] = np.cumsum([0, *rows["captured"][:-1]])
    rows["frame_octets"] = rows["captured"] if wire is None else wire
    rows["link_type"] = link_type
    return rows


WHOLE = [
    ethernet(ipv4(tcp(b"abc"), 6)),
    ethernet(ipv4(tcp(b"abc", flags=2, options=b"\x01" * 8), 6, options=b"\x01" * 8)),
    ethernet(ipv4(udp(b"x" * 90), tos=4, ttl=3)),
    ethernet(ipv4(udp(b"abc", 53, 443), place=0x2000)),
    ethernet(ipv4(b"\x08\x00" + bytes(6), 1, "1.2.3.4", "224.0.0.1")),
    ethernet(ipv4(bytes(20), 132)),
    ethernet(ipv6(udp(b"abc")), 0x86DD),
    ethernet(ipv6(b"\x11\x00" + bytes(6) + udp(b"abc"), 0), 0x86DD),
    ethernet(ipv6(tcp(b"abc", flags=0x11), 6, "fe80::1", "ff02::1"), 0x86DD),
    ethernet(ipv4(tcp(b"abc"), 6), tags=[(0x8100, 7)]),
    ethernet(ipv4(tcp(b"abc"), 6), tags=[(0x88A8, 9), (0x8100, 7)]),
    ethernet(bytes(28), 0x0806),
    ethernet(SNAP + ipv4(udp(b"abc")), 60),
    b"\xff" * 12 + ethernet(ipv4(udp(b"abc")))[12:],
    b"",
    bytes(5),
    *(ethernet(packet, 0x86DD if packet[0] >> 4 == 6 else 0x0800) for packet, _, _ in TUNNELS.values()),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_kernel_judges_as_libpcap_does(expression):
    """Over real expressions and over every header that the parser knows, whole and cut at each octet of the first."""
    packets = [*WHOLE, *(WHOLE[1][:length] for length in range(len(WHOLE[1])))]
    wire = [len(packet) for packet in WHOLE] + [len(WHOLE[1])] * len(WHOLE[1])
    program = bpf.compile_filter(expression, 1)
    assert kernel_accepts(packets, program, wire) == libpcap_accepts(packets, program, wire)


INSTRUCTIONS = st.tuples(
    st.sampled_from(
        bytes.fromhex(
            "00 01 02 03 04 05 06 07 0c 14 15 16 1c 1d 20 24 25 28 2c 2d 30 34 35 3c 3d 40 44 45 48 4c 4d 50 54 5c 60"
            "61 64 6c 74 7c 80 81 84 87 94 9c a4 ac b1"
        )
    ),
    st.integers(0, 3),
    st.integers(0, 3),
    st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1)),
)


def sound(instructions):
    """A program that ends: jumps go forward and stay inside, memory is written before it is read."""
    rows = [(0x02, 0, 0, cell) for cell in range(16)]
    for code, yes, no, value in instructions:
        if code in (0x60, 0x61, 0x02, 0x03):
            value &= 15
        elif code == 0x05:
            value &= 3
        elif code in (0x34, 0x94):
            value = max(value, 1)
        elif code in (0x64, 0x74):
            value &= 31
        rows.append((code, yes, no, value))
    return np.array([*rows, *[(0x16, 0, 0, 0)] * 5], bpf.INSTRUCTION)


@settings(max_examples=100)
@given(st.lists(INSTRUCTIONS, max_size=30), st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_any_program_gives_what_libpcap_gives(instructions, packets):
    """Every instruction, in any order, over any octets."""
    program = sound(instructions)
    assert kernel_accepts(packets, program) == libpcap_accepts(packets, program)


@pytest.mark.parametrize("link_type", [1, 12, 101, 113, 9, 0])
def test_link_types_have_programs_of_their_own(link_type):
    """`udp` looks elsewhere in each; files name some link types by other numbers than libpcap does."""
    packets = [CARRIERS[link_type], CARRIERS[1]]
    rows = frame_rows(packets)
    rows["link_type"] = link_type, 1
    assert bpf.PacketFilter("udp").accepts(np.frombuffer(b"".join(packets), np.uint8), rows).all()


def test_a_frame_outside_the_buffer_is_left_to_the_parser():
    rows = frame_rows([WHOLE[0]] * 2)
    rows["offset"] = -1, 10**9
    assert bpf.accepts(np.frombuffer(WHOLE[0], np.uint8), rows, bpf.compile_filter("arp", 1)).all()


def test_a_program_keeps_as_many_octets_as_it_is_told():
    assert bpf.compile_filter("", 1, 96)[-1].tolist() == (0x06, 0, 0, 96)


@pytest.mark.parametrize(
    ("expression", "link_type", "said"),
    [("tcp prt 80", 1, "syntax error"), ("host nowhere.invalid", 1, "unknown host"), ("tcp", 147, "DLT 147")],
)
def test_a_wrong_expression_is_one_line(expression, link_type, said):
    with pytest.raises(InputError, match=said) as error:
        bpf.compile_filter(expression, link_type)
    assert "--filter" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_filter_says_which_link_type_it_cannot_judge():
    chosen = bpf.PacketFilter("ether host 02:00:00:00:00:01")
    with pytest.raises(InputError, match="link type 101"):
        chosen.accepts(np.frombuffer(WHOLE[0], np.uint8), frame_rows([WHOLE[0]], link_type=101))


def test_a_missing_libpcap_is_one_line(monkeypatch):
    monkeypatch.setattr(bpf, "_LIBRARIES", ("libnothing.so.9",))
    bpf._libpcap.cache_clear()
    try:
        with pytest.raises(InputError, match="apt install libpcap"):
            bpf.compile_filter("tcp", 1)
    finally:
        bpf._libpcap.cache_clear()
