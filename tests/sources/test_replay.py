"""Replayed captures: at the right times by the clock, in order, with the times that were asked for."""

import numpy as np
import pytest
from capture_files import frame, number_of, pcap, pcap_header, pcap_record

from sources.captures import ReadReport, ReadSettings, SensorInput
from sources.headers import HeaderSettings
from sources.replay import ReplayInput, ReplaySettings
from transforms.records import InputError

SECOND = 1_000_000_000
NOW_NS = 2_000_000_000 * SECOND


class Clock:
    """A clock that moves on only while somebody waits."""

    def __init__(self):
        self.s = 1000.0

    def sleep(self, seconds):
        assert seconds >= 0
        self.s += seconds + 1e-6

    def now_ns(self):
        return NOW_NS + round((self.s - 1000) * 1e9)


@pytest.fixture
def capture(tmp_path):
    """Packets at 100 s and 0, 1, 1.5, 4, 4.0001 s later."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([100 * SECOND + round(at * SECOND) for at in (0, 1, 1.5, 4, 4.0001)]))
    return path


def opened(path, clock=None, report=None, **settings):
    clock = clock or Clock()
    files = SensorInput("tap", (str(path),))
    return ReplayInput(
        files,
        ReplaySettings(**settings),
        report or ReadReport(),
        clock_ns=clock.now_ns,
        clock_s=lambda: clock.s,
        sleep=clock.sleep,
    )


def played(source, clock, wait_s=0.1):
    """(seconds since the start, time) of each packet, and every observed time."""
    given, observed = [], []
    while (chunk := source.read(wait_s)) is not None:
        given += [(clock.s - 1000, time_ns) for time_ns in chunk.packets["time_ns"].tolist()]
        observed.append((clock.s - 1000, chunk.observed_ns))
    source.close()
    return given, observed


@pytest.mark.parametrize("speed", [1, 0.5, 10])
@pytest.mark.parametrize("shifted", [False, True])
def test_packets_come_when_they_are_due(capture, speed, shifted):
    """To a millisecond or two, with the time of the capture, or of now."""
    clock = Clock()
    given, _ = played(opened(capture, clock, speed=speed, shift_times=shifted), clock)
    gaps = [0, 1, 1.5, 4, 4.0001]
    assert [at for at, _ in given] == pytest.approx([gap / speed for gap in gaps], abs=0.002)
    begin, scale = (NOW_NS, speed) if shifted else (100 * SECOND, 1)
    assert [time_ns - begin for _, time_ns in given] == [round(gap * SECOND / scale) for gap in gaps]


def test_time_moves_on_between_packets(capture):
    """What is observed follows the clock, never past a packet that is still to come."""
    clock = Clock()
    given, observed = played(opened(capture, clock, speed=2), clock)
    at_s, times = zip(*observed, strict=True)
    assert list(times) == sorted(times)
    expected = [100 + 2 * at for at in at_s]
    assert [time_ns / SECOND for time_ns in times] == pytest.approx(expected, abs=0.01)
    assert len(observed) > 15
    assert given[-1][1] == times[-1]


def test_a_rate_sets_the_pace(tmp_path):
    """Whatever the times; moved to now, packets are as far apart as they are sent."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([0, 1, 2, 3 * SECOND, 4 * SECOND, 90 * SECOND]))
    for shifted, times in ((False, [0, 1, 2, 3 * SECOND, 4 * SECOND, 90 * SECOND]), (True, None)):
        clock = Clock()
        given, _ = played(opened(path, clock, rate=4, shift_times=shifted), clock)
        assert [at for at, _ in given] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1.25], abs=0.002)
        expected = times or [NOW_NS + i * SECOND // 4 for i in range(6)]
        assert [time_ns for _, time_ns in given] == expected


def test_nothing_waits_without_a_pace(capture):
    """As fast as possible; times may be moved all the same."""
    clock = Clock()
    given, _ = played(opened(capture, clock, shift_times=True), clock)
    assert clock.s == 1000
    assert [time_ns - NOW_NS for _, time_ns in given] == [0, SECOND, 1.5 * SECOND, 4 * SECOND, 4.0001 * SECOND]


def test_loops_go_on_in_time(capture):
    """Each begins a mean gap after the last; flows of one are not those of another."""
    clock = Clock()
    given, _ = played(opened(capture, clock, loop=3), clock)
    times = [time_ns for _, time_ns in given]
    assert times == sorted(times)
    assert len(times) == 15
    assert times[5] - times[4] == 4_000_100_000 // 4
    assert np.diff(times[5:10]).tolist() == np.diff(times[:5]).tolist()


def test_many_packets_come_together(tmp_path):
    """A fast replay hands over a millisecond's packets at a time, not each on its own; all of them, in order."""
    path = tmp_path / "many.pcap"
    path.write_bytes(pcap([i * 10_000 for i in range(50_000)]))
    clock = Clock()
    source, chunks, numbers = opened(path, clock, speed=1), 0, []
    while (chunk := source.read(0.01)) is not None:
        chunks += 1
        numbers += number_of(chunk.packets)
    assert numbers == list(range(50_000))
    assert chunks <= 600
    assert clock.s - 1000 == pytest.approx(0.5, abs=0.01)
    source.close()


def test_payload_prefixes_stay_with_their_packets(tmp_path):
    """However chunks are cut."""
    frames = [pcap_record(i // 10, i % 10, frame(1, b"%03d" % i)) for i in range(100)]
    (tmp_path / "a.pcap").write_bytes(pcap_header() + b"".join(frames))
    source = opened(tmp_path / "a.pcap", speed=1, read=ReadSettings(HeaderSettings(payload_octets=3)))
    found = []
    while (chunk := source.read(0.3)) is not None:
        octets = chunk.payloads.tobytes()
        found += [octets[at : at + n] for at, n in chunk.packets[["payload_at", "payload_captured"]]]
    assert found == [b"%03d" % i for i in range(100)]
    source.close()


def test_rejects_are_told_once(tmp_path):
    """Also those behind the last packet."""
    content = pcap([0, 1]) + pcap_record(1, 0, b"\xff" * 12 + b"\x08\x06" + bytes(28))
    (tmp_path / "a.pcap").write_bytes(content)
    (tmp_path / "none.pcap").write_bytes(pcap_header() + pcap_record(1, 0, b"\xff" * 12 + b"\x08\x06" + bytes(28)))
    for name in ("a.pcap", "none.pcap"):
        source = opened(tmp_path / name)
        told = []
        while (chunk := source.read(0.1)) is not None:
            told.append(chunk.rejects)
        assert sum(rejects.get("not_ip", 0) for rejects in told) == 1
        source.close()


def test_what_cannot_be_replayed_is_one_line(tmp_path):
    """No capture; standard input more than once; numbers that make no sense."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" * 10)
    with pytest.raises(InputError, match=r"a\.png"):
        opened(tmp_path / "a.png")
    with pytest.raises(InputError, match="--loop: standard input"):
        opened("-", loop=2)
    for setting in ({"speed": -1}, {"rate": float("nan")}, {"loop": -1}):
        with pytest.raises(InputError, match=f"--{next(iter(setting))}"):
            ReplaySettings(**setting)
