"""Live capture from real lines: what is sent on one end of a veth pair is what the sensor gives at the other."""

import errno
import fcntl
import logging
import os
import socket
import struct
import subprocess
import time

import numpy as np
import pytest
from frames_testing import DST, IP, SRC, addresses, ethernet, ipv4, ipv6, tcp, udp
from live_line import Line, a_line, packets_of, read_packets, read_until
from sensor_testing import until

from sources import interface
from sources.headers import HeaderSettings
from sources.interface import CardDrops, InterfaceInput, InterfaceSettings
from sources.packet_ring import PacketRing, RingSettings, keep_all, link_type
from transforms.records import InputError

SMALL_RING = 4 << 20


@pytest.fixture(scope="module")
def line():
    with a_line() as made:
        yield made


@pytest.fixture
def own_line():
    """For tests that break it."""
    with a_line() as made:
        yield made


def capture(line: Line, name: str = "near", **settings):
    with line.inside():
        return InterfaceInput(InterfaceSettings(name, ring_octets=SMALL_RING, **settings))


@pytest.fixture
def captured(line, request):
    opened = capture(line, filter="not ip6", **getattr(request, "param", {}))
    yield opened
    opened.close()


@pytest.fixture
def sender(line):
    with line.sender() as sock:
        yield sock


def numbered(number: int, octets: int = 40) -> bytes:
    return ethernet(ipv4(udp(bytes(octets), src_port=1000 + number)))


def test_every_packet_with_its_time_and_lengths(captured, sender):
    """In order; times are the kernel's, in nanoseconds; lengths those of the line, and nothing is dropped."""
    before = time.time_ns()
    for number in range(500):
        sender.send(numbered(number, number))
    after = time.time_ns()
    chunks = read_until(captured, lambda found: len(packets_of(found)) >= 500, "500 packets")
    packets = packets_of(chunks)
    assert packets["src_port"].tolist() == list(range(1000, 1500))
    assert packets["ip_octets"].tolist() == [28 + number for number in range(500)]
    assert packets["frame_octets"].tolist() == [42 + number for number in range(500)]
    assert packets["src_mac"][0] == 0x020000000001
    times = packets["time_ns"].astype(np.int64)
    assert before <= times[0]
    assert times[-1] <= after
    assert (np.diff(times) >= 0).all()
    assert (times % 1000 != 0).any()
    assert sum(chunk.dropped for chunk in chunks) == 0


def test_both_directions_are_seen(line, captured, sender):
    """What the interface sends, and what it receives."""
    with line.sender("near") as near:
        near.send(numbered(1))
        sender.send(numbered(2))
        assert sorted(read_packets(captured, 2)["src_port"].tolist()) == [1001, 1002]


def test_what_is_no_ip_is_counted(captured, sender):
    sender.send(ethernet(bytes(40), 0x0806))
    sender.send(ethernet(b"\x45" + bytes(30)))
    sender.send(numbered(3))
    chunks = read_until(captured, lambda found: len(packets_of(found)) >= 1, "a packet")
    assert [chunk.rejects for chunk in chunks if chunk.rejects] == [{"not_ip": 1, "malformed": 1}]


@pytest.mark.parametrize(
    ("tags", "vlan_id"),
    [([(0x8100, 7)], 7), ([(0x88A8, 9), (0x8100, 7)], 9), ([(0x8100, 0)], 0), ([(0x8100, 0), (0x8100, 7)], 7)],
    ids=["one", "the outer of two", "a priority tag", "a priority tag around another"],
)
def test_vlan_tags_are_kept(captured, sender, tags, vlan_id):
    """Linux takes the outer tag out of a frame that it receives; row and length are those with it."""
    frame = ethernet(IP, tags=tags)
    sender.send(frame)
    (packet,) = read_packets(captured, 1)
    assert (packet["vlan_id"], packet["frame_octets"], packet["ip_octets"]) == (vlan_id, len(frame), len(IP))
    assert addresses(packet)[0] == SRC


@pytest.mark.parametrize("captured", [{"headers": HeaderSettings(payload_octets=8)}], indirect=True)
def test_payload_prefixes_lie_behind_each_other(captured, sender):
    for number in range(3):
        sender.send(ethernet(ipv4(udp(bytes([number] * (4 + 3 * number))))))
    chunks = read_until(captured, lambda found: len(packets_of(found)) >= 3, "3 packets")
    prefixes = [
        chunk.payloads[packet["payload_at"] :][: packet["payload_captured"]].tolist()
        for chunk in chunks
        for packet in chunk.packets
    ]
    assert prefixes == [[0] * 4, [1] * 7, [2] * 8]


@pytest.mark.parametrize("captured", [{"snaplen": 60}], indirect=True)
def test_a_snap_length_cuts_packets_but_not_their_lengths(captured, sender):
    sender.send(ethernet(ipv4(tcp(bytes(900)), 6)))
    sender.send(ethernet(ipv6(tcp(bytes(900)), 6), 0x86DD))
    chunks = read_until(captured, lambda found: len(packets_of(found)) >= 1, "a packet")
    (packet,) = packets_of(chunks)
    assert (packet["frame_octets"], packet["ip_octets"], packet["payload_octets"]) == (954, 940, 900)


@pytest.mark.parametrize(
    ("expression", "kept"), [("udp port 1002", [1002]), ("vlan 5", [1003]), ("vlan and udp", [1003])]
)
def test_linux_filters(line, sender, expression, kept):
    """Also by a tag that is no longer in the frame."""
    captured = capture(line, filter=expression)
    sender.send(numbered(1))
    sender.send(numbered(2))
    sender.send(ethernet(ipv4(udp(b"", src_port=1003)), tags=[(0x8100, 5)]))
    try:
        assert read_packets(captured, len(kept))["src_port"].tolist() == kept
    finally:
        captured.close()


def is_promiscuous(line: Line) -> bool:
    shown = subprocess.run(line.command("ip", "-d", "link", "show", "near"), check=True, capture_output=True, text=True)
    return "promiscuity 0" not in shown.stdout


def test_promiscuous_by_request_and_only_while_capturing(line):
    for wanted in (True, False):
        captured = capture(line, promiscuous=wanted)
        assert is_promiscuous(line) == wanted
        captured.close()
    assert not is_promiscuous(line)


def test_what_finds_no_room_is_counted_and_nothing_else_is_lost(captured, sender):
    """A reader that sleeps: packets captured and packets dropped are all that was sent."""
    frame = numbered(1, 1400)
    sent = 8000
    for _ in range(sent):
        sender.send(frame)
    chunks = read_until(
        captured,
        lambda found: sum(len(chunk.packets) + chunk.dropped for chunk in found) >= sent,
        "all that was sent",
    )
    dropped = sum(chunk.dropped for chunk in chunks)
    assert 0 < dropped < sent
    assert len(packets_of(chunks)) + dropped == sent


def test_a_merged_packet_of_64_kib_is_right(line):
    """What a card or Linux merges is longer than any frame of the line."""
    with line.inside(), socket.create_server(("127.0.0.1", 0)) as server:
        captured = InterfaceInput(InterfaceSettings("lo", filter="tcp and greater 60000", ring_octets=SMALL_RING))
        try:
            with socket.create_connection(server.getsockname()) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(bytes(1 << 20))
                    packet = read_packets(captured, 1)[0]
        finally:
            captured.close()
    assert packet["frame_octets"] == packet["ip_octets"] + 14 == packet["payload_octets"] + 66


def test_the_loopback_shows_each_packet_once(line):
    with line.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        captured = InterfaceInput(InterfaceSettings("lo", ring_octets=SMALL_RING))
        for octets in (1, 2, 3):
            sock.sendto(bytes(octets), ("127.0.0.1", 9))
    try:
        packets = read_packets(captured, 4)  # the last is what ICMP says of the port
        assert packets["ip_octets"][packets["protocol"] == 17].tolist() == [29, 30, 31]
    finally:
        captured.close()


def test_a_tunnel_of_plain_ip_has_no_link_header(own_line):
    """As tun devices, WireGuard and IP in IP are."""
    with own_line.inside():
        try:
            tunnel = os.open("/dev/net/tun", os.O_RDWR)
        except OSError as error:
            pytest.skip(f"no tun devices here: {error}")
        set_interface, tun_without_header = 0x400454CA, 0x1001
        fcntl.ioctl(tunnel, set_interface, struct.pack("16sH22x", b"inner", tun_without_header))
    own_line.ip("link set inner up")
    captured = capture(own_line, "inner", filter="udp")
    os.write(tunnel, IP)
    try:
        (packet,) = read_packets(captured, 1)
        assert (addresses(packet), packet["frame_octets"], packet["src_mac"]) == ((SRC, DST), len(IP), 0)
    finally:
        captured.close()
        os.close(tunnel)


@pytest.mark.parametrize("fanout", ["hash", "balance"])
def test_several_rings_share_the_packets(line, sender, fanout):
    """Each packet is in one ring; what is read together is in order of time, payload prefixes with it."""
    captured = capture(line, rings=3, fanout=fanout, filter="udp", headers=HeaderSettings(payload_octets=2))
    try:
        for number in range(300):
            sender.send(ethernet(ipv4(udp(number.to_bytes(2, "big"), src_port=1000 + number))))
        chunks = read_until(captured, lambda found: len(packets_of(found)) >= 300, "300 packets")
        assert sorted(packets_of(chunks)["src_port"].tolist()) == list(range(1000, 1300))
        for chunk in chunks:
            assert (np.diff(chunk.packets["time_ns"].astype(np.int64)) >= 0).all()
            prefixes = np.concatenate([[0, 0], chunk.payloads])[2:].astype(np.uint8).view(">u2")
            assert (prefixes[chunk.packets["payload_at"] // 2] + 1000 == chunk.packets["src_port"]).all()
            assert (np.diff(chunk.packets["payload_at"].astype(np.int64)) == 2).all()
    finally:
        captured.close()


def test_time_moves_on_where_the_line_is_silent(captured):
    """Behind the clock by what Linux may hold back; an empty chunk is no end."""
    first = captured.read(0).observed_ns
    chunk = captured.read(0.05)
    assert len(chunk.packets) == 0
    assert chunk.observed_ns > first
    assert 0 < time.time_ns() - chunk.observed_ns < 400_000_000


def test_no_packet_comes_from_before_what_was_observed(captured, sender):
    observed_ns = 0
    for number in range(30):
        sender.send(numbered(number))
        chunk = captured.read(0.004 * (number % 3))
        if len(chunk.packets):
            assert chunk.packets["time_ns"].min() >= observed_ns
        assert chunk.observed_ns >= observed_ns
        observed_ns = chunk.observed_ns


def test_an_interface_that_goes_down_comes_back(own_line, caplog):
    captured = capture(own_line, filter="udp")
    with own_line.sender() as sender, caplog.at_level(logging.WARNING):
        sender.send(numbered(1))
        read_packets(captured, 1)
        own_line.ip("link set near down")
        read_until(captured, lambda _: "interface near is down" in caplog.text, "the news that it is down")
        before = captured.read(0).observed_ns
        own_line.ip("link set near up")
        read_until(captured, lambda _: "interface near is up again" in caplog.text, "the news that it is up")
        assert captured.read(0.01).observed_ns > before
        until(lambda: carries(own_line))
        sender.send(numbered(2))
        assert read_packets(captured, 1)["src_port"].tolist() == [1002]
    captured.close()


def carries(line: Line) -> bool:
    shown = subprocess.run(line.command("ip", "link", "show", "far"), check=True, capture_output=True, text=True)
    return "state UP" in shown.stdout


def test_an_interface_that_is_made_again_is_opened_again(own_line, caplog):
    captured = capture(own_line, filter="udp")
    with caplog.at_level(logging.WARNING), own_line.inside():
        with own_line.sender() as sender:
            sender.send(numbered(1))
        own_line.ip("link del near")
        chunks = read_until(captured, lambda _: "near is gone" in caplog.text, "the news that it is gone")
        assert packets_of(chunks)["src_port"].tolist() == [1001]
        own_line.ip("link add near type veth peer name far")
        own_line.ip("link set near up")
        own_line.ip("link set far up")
        read_until(captured, lambda _: "near is back" in caplog.text, "the news that it is back")
        until(lambda: carries(own_line))
        with own_line.sender() as sender:
            sender.send(numbered(2))
        assert read_packets(captured, 1)["src_port"].tolist() == [1002]
    captured.close()


def test_an_interface_that_stays_away_is_one_line(own_line):
    captured = capture(own_line, return_s=0.2)
    own_line.ip("link del near")
    with (
        own_line.inside(),
        pytest.raises(InputError, match=r"^interface:near: is gone and did not come back within 0.2 s$"),
    ):
        read_until(captured, lambda _: False, "the error")
    captured.close()


def test_an_interface_that_may_not_be_opened_again_is_one_line(own_line, monkeypatch):
    """The sensor gave its rights up; what was captured before comes out first."""
    captured = capture(own_line, filter="udp")
    with own_line.sender() as sender:
        sender.send(numbered(1))
    own_line.ip("link del near")

    def refused(name: str) -> None:
        raise InputError(f"interface:{name}: no permission") from PermissionError(
            errno.EPERM, "Operation not permitted"
        )

    monkeypatch.setattr(interface, "open_socket", refused)
    chunks = []
    with pytest.raises(InputError, match=r"^interface:near: is gone, and .* given up; start the sensor again$"):
        until(lambda: chunks.append(captured.read(0.001)) is not None)
    assert packets_of(chunks)["src_port"].tolist() == [1001]
    captured.close()


def test_what_the_card_drops_is_counted(tmp_path, monkeypatch):
    """Both counters; a driver that begins again at 0 takes nothing back."""
    monkeypatch.setattr(interface, "_CHECK_S", 0)
    missed, overflowed = tmp_path / "rx_missed_errors", tmp_path / "rx_fifo_errors"
    missed.write_text("5\n")
    overflowed.write_text("7\n")
    card = CardDrops(str(tmp_path))
    assert card.newly_dropped() == 0
    missed.write_text("8\n")
    overflowed.write_text("17\n")
    assert (card.newly_dropped(), card.newly_dropped()) == (13, 0)
    missed.write_text("0\n")
    assert card.newly_dropped() == 0
    card.close()
    none = CardDrops(str(tmp_path / "none"))
    assert none.newly_dropped() == 0
    none.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "nothere"}, "there is no such interface; there are .*near"),
        ({"name": "a-name-that-no-interface-has"}, "there is no such interface"),
        ({"filter": "tcp prt 80"}, "syntax error"),
        ({"filter": "ip protochain 17"}, "Linux does not take this --filter"),
        ({"rings": 0}, "--rings"),
        ({"fanout": "luck"}, "--fanout: unknown mode 'luck'; choose of hash, balance, cpu, queue"),
        ({"snaplen": 5}, "--snaplen"),
        ({"ring_octets": 4096}, "--ring_octets"),
        ({"ring_octets": 1 << 50}, "--ring_octets"),
        ({"block_ms": 0}, "--block_ms"),
    ],
)
def test_mistakes_are_one_line(line, settings, said):
    with line.inside(), pytest.raises(InputError, match=said) as error:
        InterfaceInput(InterfaceSettings(**{"name": "near", "ring_octets": SMALL_RING, **settings}))
    assert "\n" not in str(error.value)


class FullSocket:
    """A socket of a machine without memory."""

    def setsockopt(self, level: int, *_: object) -> None:
        if level != socket.SOL_SOCKET:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_no_memory_says_what_to_set():
    settings = RingSettings(64 << 20, 20, True, keep_all(100), HeaderSettings())
    with pytest.raises(InputError, match=r"no ring of 64 MiB \(Cannot allocate memory\); set a smaller --ring_octets"):
        PacketRing(FullSocket(), "near", 1, 1, settings)


def test_no_permission_says_what_to_give(monkeypatch):
    """One line that names the capability and two ways to give it."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refused)
    said = r"no permission to capture: run as root, or .*AmbientCapabilities=CAP_NET_RAW.*setcap cap_net_raw\+ep /"
    with pytest.raises(InputError, match=said):
        InterfaceInput(InterfaceSettings("lo"))


def test_an_interface_without_packets_of_ours_is_named(monkeypatch):
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: struct.pack("16sH22x", b"can0", 280))
    with pytest.raises(InputError, match=r"can0: is CAN \(ARPHRD 280\); Ethernet, loopback and IP tunnels"):
        link_type(None, "can0")
