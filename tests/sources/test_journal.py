"""A sensor's buffer: what was kept comes back, in order, whatever happened to the process or the disk."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import journal as journals
from sources import segments
from sources.journal import SMALLEST, BufferSettings, Journal
from sources.sensor_folder import Epochs, default_folder, sensor_folder
from transforms import avro
from transforms.records import PACKET, InputError, PacketBatch, Stream


def block(sequence, *, epoch=7, partition=0, end=False, observed_ns=None):
    observed_ns = 1000 + sequence if observed_ns is None else observed_ns
    return PacketBatch(Stream("tap", epoch, partition), sequence, observed_ns, np.zeros(0, PACKET), end=end)


def keep(journal, *blocks, padding=0):
    """Whether each was kept; they are messages with so many more octets, as if they had packets."""
    return [journal.append(one, avro.encode_block(one) + bytes(padding), one.observed_ns) for one in blocks]


def numbers(journal):
    """The numbers of all that is handed over."""
    found = []
    while (message := journal.next()) is not None:
        found.append(avro.decode_header(message).sequence)
    return found


@pytest.fixture
def opened(tmp_path):
    """Opens the journal of a folder, as a new process would: locks of earlier ones are gone."""
    made = []

    def open_journal(octets=1 << 30, sensor="tap", folder=tmp_path):
        journal = Journal(BufferSettings(folder, octets), sensor)
        made.append(journal)
        return journal

    yield open_journal
    for journal in made:
        journal.close()


def kill(journal):
    """What a killed process leaves: its files as they are, no lock."""
    journal._lock.close()
    journal._lock = None


def files(tmp_path):
    return sorted(sensor_folder(tmp_path, "tap").glob("*.blocks"))


def test_what_was_kept_and_not_settled_comes_back(opened, tmp_path):
    """In order, without what was settled."""
    journal = opened()
    keep(journal, *map(block, range(5)))
    assert numbers(journal) == [0, 1, 2, 3, 4]
    journal.settle(2)
    kill(journal)
    again = opened()
    assert again.waiting == 3
    keep(again, block(0, epoch=8))
    assert numbers(again) == [2, 3, 4, 0]


def test_nothing_stays_of_a_clean_stop(opened, tmp_path):
    """All settled, all streams ended: no file, and the next run has nothing to end."""
    journal = opened()
    keep(journal, block(0), block(1, end=True))
    numbers(journal)
    journal.settle(2)
    journal.close()
    assert files(tmp_path) == []
    assert opened().unended == []


@pytest.mark.parametrize("settled", [0, 3, 5])
def test_a_killed_run_is_known_to_the_last_number(opened, settled):
    """Also when all blocks were settled and the files of most are gone: its streams can be ended where they stopped."""
    journal = opened(4 * SMALLEST)
    for sequence in range(5):
        keep(journal, block(sequence), block(sequence, partition=1, observed_ns=50), padding=300_000)
        journal.next()
        journal.next()
        if sequence < settled:
            journal.settle(2)
    kill(journal)
    again = opened(4 * SMALLEST)
    assert again.trusted
    assert [(one.stream, one.next, one.observed_ns, one.latest_ns) for one in again.unended] == [
        (Stream("tap", 7, 0), 5, 1004, 1004),
        (Stream("tap", 7, 1), 5, 50, 50),
    ]


@given(st.integers(1, 300), st.booleans())
@settings(max_examples=40)
def test_a_torn_tail_is_cut(tmp_path_factory, cut, overwritten):
    """Whole records stay, whatever became of the last octets; what is appended later is read behind them."""
    folder = tmp_path_factory.mktemp("torn")
    journal = Journal(BufferSettings(folder), "tap")
    keep(journal, *map(block, range(4)), padding=60)
    kill(journal)
    (path,) = files(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut] + (cut * b"\xff" if overwritten else b""))
    again = Journal(BufferSettings(folder), "tap")
    kept = again.waiting
    assert kept < 4
    keep(again, block(9))
    assert numbers(again) == [*range(kept), 9]
    again.close()


def test_a_full_buffer_takes_no_more_until_something_is_settled(opened):
    """The blocks that are there stay; an end block is always taken."""
    journal = opened(SMALLEST)
    taken = []
    for sequence in range(20):
        taken += keep(journal, block(sequence), padding=100_000)
    assert taken == [True] * 10 + [False] * 10
    assert keep(journal, block(20, end=True)) == [True]
    assert numbers(journal) == [*range(10), 20]
    journal.settle(8)
    assert keep(journal, block(21), padding=100_000) == [True]
    assert journal.octets < SMALLEST


def test_empty_blocks_fill_the_buffer_too(opened, monkeypatch):
    """So that years of heartbeats do not make a list without end."""
    journal = opened(SMALLEST)
    taken = keep(journal, *map(block, range(6000)))
    assert 3500 < sum(taken) < 4500


def test_settled_files_are_deleted(opened, tmp_path):
    """All but the one that is written to."""
    journal = opened(SMALLEST)
    for sequence in range(30):
        assert keep(journal, block(sequence), padding=100_000) == [True]
        numbers(journal)
        journal.settle(1)
        assert len(files(tmp_path)) <= 2
    assert journal.waiting == 0
    assert journal.octets < SMALLEST


def test_rewinding_hands_over_again_what_is_not_settled(opened):
    """Over the borders of files."""
    journal = opened(SMALLEST)
    for sequence in range(9):
        keep(journal, block(sequence), padding=100_000)
    assert numbers(journal) == list(range(9))
    journal.settle(4)
    journal.rewind()
    assert numbers(journal) == [4, 5, 6, 7, 8]
    journal.settle(5)
    assert journal.oldest_ns is None


def test_a_second_sensor_of_the_same_name_is_refused(opened):
    """In one line; another name is welcome."""
    opened()
    with pytest.raises(InputError, match="sensor tap runs already"):
        opened()
    opened(sensor="other")


def test_a_disk_that_is_full_is_gone_around(opened, monkeypatch, tmp_path):
    """Blocks wait in memory meanwhile, in order, and go to the disk again when it takes them."""
    journal = opened()
    keep(journal, block(0), block(1))
    full = monkeypatch.context()
    with full as patch:

        def no_space(descriptor, pieces, at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(segments.os, "pwritev", no_space)
        assert keep(journal, block(2), block(3)) == [True, True]
        assert "No space left on device; blocks wait in memory" in journal.problem
    keep(journal, block(4))
    assert journal.octets_in_memory > 0
    monkeypatch.setattr(journals.time, "monotonic", lambda: 1e9)
    keep(journal, block(5))
    assert journal.problem is None
    assert numbers(journal) == [0, 1, 2, 3, 4, 5]
    journal.settle(5)
    assert journal.octets_in_memory == 0


def test_numbers_that_no_file_knows_are_not_given_again(opened, monkeypatch):
    """A process that is killed while the disk takes nothing leaves streams whose end only readers can tell."""
    journal = opened()
    keep(journal, block(0))

    def no_space(descriptor, pieces, at):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(segments.os, "pwritev", no_space)
        keep(journal, block(1))
    kill(journal)
    again = opened()
    assert not again.trusted
    assert again.unended[0].next == 1
    assert numbers(again) == [0]


def test_after_a_power_cut_numbers_are_not_trusted(opened, monkeypatch):
    """Files may be older than what the queue has."""
    journal = opened()
    keep(journal, block(0))
    kill(journal)
    monkeypatch.setattr(journals, "_boot_id", lambda: "another start of the machine")
    assert not opened().trusted


def test_memory_is_bounded_where_there_is_no_disk(monkeypatch):
    """As for files, which can be read again."""
    monkeypatch.setattr(journals, "MEMORY_OCTETS", 10_000)
    journal = Journal(BufferSettings(), "tap")
    assert keep(journal, *map(block, range(12)), padding=1000).count(True) in (8, 9)
    assert numbers(journal)[:3] == [0, 1, 2]
    journal.settle(3)
    assert keep(journal, block(20), padding=1000) == [True]
    assert journal.problem is None


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    """And blocks wait in memory."""
    (tmp_path / "file").touch()
    journal = Journal(BufferSettings(tmp_path / "file"), "tap")
    assert "blocks wait in memory" in journal.problem
    assert keep(journal, block(0)) == [True]
    assert numbers(journal) == [0]


def test_files_that_are_no_buffer_are_left_alone(opened, tmp_path):
    """One line names each."""
    kill(opened())
    (sensor_folder(tmp_path, "tap") / "000000000007.blocks").write_bytes(b"\x89PNG\r\n\n")
    again = opened()
    assert len(again.damage) == 1
    assert "000000000007.blocks" in again.damage[0]
    assert keep(again, block(0)) == [True]


def test_the_parts_of_a_queue_are_remembered(opened):
    """For a start while the queue is down; of another queue nothing is known."""
    journal = opened()
    assert journal.known_of("kafka://broker/topic") is None
    journal.remember("kafka://broker/topic", 8, 1_000_000)
    kill(journal)
    again = opened()
    assert again.known_of("kafka://broker/topic") == (8, 1_000_000)
    assert again.known_of("kafka://broker/other") is None


def test_epochs_only_grow(tmp_path):
    """Whatever the clock says, and over processes."""
    clock = iter([1000, 500, 2000, 100])
    assert [Epochs(tmp_path / "new", lambda: next(clock)).next() for _ in range(4)] == [1000, 1001, 2000, 2001]
    (tmp_path / "file").touch()
    nowhere = Epochs(tmp_path / "file", lambda: 5)
    assert [nowhere.next(), nowhere.next()] == [5, 6]


@pytest.mark.parametrize(
    ("environment", "user", "place"),
    [
        ({"STATE_DIRECTORY": "/service/one:/service/two", "XDG_STATE_HOME": "/state"}, 0, "/service/one"),
        ({"XDG_STATE_HOME": "/state"}, 0, "/state/flowbeam"),
        ({}, 0, "/var/lib/flowbeam"),
        ({"HOME": "/home/a"}, 1000, "/home/a/.local/state/flowbeam"),
    ],
    ids=["service", "own", "root", "user"],
)
def test_where_a_sensor_keeps_its_buffer(monkeypatch, environment, user, place):
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert str(default_folder()) == place


def test_names_of_sensors_become_names_of_folders(tmp_path):
    """Of any length, different ones for different sensors, never outside."""
    names = ["north", "a/b", "..", ".", "", "x" * 300, "x" * 299 + "y", "naïve tap", "a%2Fb"]
    folders = [sensor_folder(tmp_path, name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == tmp_path and len(os.fsencode(folder.name)) < 200 for folder in folders)
