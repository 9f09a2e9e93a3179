"""Files that are read again when they have changed."""

import logging
import os

import pytest

from transforms.enrich.watched import Watched
from transforms.records import InputError


def watched_words(*paths):
    return Watched(paths, lambda: [word for path in paths for word in load(path)])


def load(path):
    """The words of a file, or of a folder's files; `bad` cannot be used."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    try:
        words = [file.read_text(encoding="utf-8") for file in files]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if "bad" in words:
        raise InputError(f"{path}: bad")
    return words


def test_a_changed_file_is_read_when_it_rests(tmp_path):
    """Not while every look finds another state: it may be half written."""
    path = tmp_path / "a"
    path.write_text("one")
    watched = watched_words(path)
    assert (watched.value, watched.look()) == (["one"], None)
    path.write_text("half")
    assert watched.look() is None
    path.write_text("whole")
    assert watched.look() is None
    assert watched.value == ["one"]
    assert watched.look() is True
    assert watched.value == ["whole"]
    assert watched.look() is None


def test_a_file_put_in_its_place_is_noticed_by_its_number(tmp_path):
    """Same size, same time."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    other.write_text("two")
    for file in (path, other):
        os.utime(file, ns=(10**18, 10**18))
    watched = watched_words(path)
    other.rename(path)
    assert (watched.look(), watched.look()) == (None, True)
    assert watched.value == ["two"]


def test_what_cannot_be_used_is_told_once_and_the_old_stays(tmp_path, caplog):
    path = tmp_path / "a"
    path.write_text("one")
    watched = watched_words(path)
    path.write_text("bad")
    with caplog.at_level(logging.WARNING):
        assert [watched.look() for _ in range(5)] == [None, False, None, None, None]
    assert [record.getMessage() for record in caplog.records] == [f"{path}: bad; what was read before stays in use"]
    assert (watched.value, watched.outdated) == (["one"], True)
    path.write_text("good")
    assert [watched.look() for _ in range(2)] == [None, True]
    assert (watched.value, watched.outdated) == (["good"], False)


def test_a_file_that_is_gone_and_comes_back_unchanged(tmp_path):
    path, away = tmp_path / "a", tmp_path / "away"
    path.write_text("one")
    watched = watched_words(path)
    path.rename(away)
    assert [watched.look() for _ in range(3)] == [None, False, None]
    assert (watched.value, watched.outdated) == (["one"], True)
    away.rename(path)
    assert watched.look() is None
    assert not watched.outdated


def test_a_folder_changes_with_its_files(tmp_path):
    (tmp_path / "a").write_text("one")
    watched = watched_words(tmp_path)
    (tmp_path / "b").write_text("two")
    assert [watched.look() for _ in range(3)] == [None, True, None]
    assert watched.value == ["one", "two"]
    (tmp_path / "a").unlink()
    assert [watched.look() for _ in range(2)] == [None, True]
    assert watched.value == ["two"]


def test_several_files_are_one_value(tmp_path):
    """All are read when one has changed; equal names in two folders are two files."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "list").write_text(folder)
    watched = watched_words(tmp_path / "a", tmp_path / "b" / "list")
    (tmp_path / "b" / "list").write_text("c")
    assert [watched.look() for _ in range(2)] == [None, True]
    assert watched.value == ["a", "c"]


def test_the_first_state_must_be_usable(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        watched_words(tmp_path / "absent")
