"""Files, patterns and folders become the inputs of sensors."""

import gzip
import os

import pytest
from capture_files import pcap_header

from sources.input_files import sensor_inputs
from transforms.records import InputError


@pytest.fixture
def folder(tmp_path):
    """Captures by suffix and by what they begin with, among other files."""
    for name in ("b/two.pcap", "a/one.pcapng", "a/empty.cap", "top.pcap.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "nameless").write_bytes(pcap_header())
    (tmp_path / "a" / "packed.gz").write_bytes(gzip.compress(pcap_header()))
    (tmp_path / "a" / "notes.txt").write_bytes(b"no capture at all, only text")
    (tmp_path / "a" / "log.gz").write_bytes(gzip.compress(b"no capture at all, only text"))
    return tmp_path


CAPTURES = ["a/empty.cap", "a/nameless", "a/one.pcapng", "a/packed.gz", "b/two.pcap", "top.pcap.gz"]


def test_a_folder_is_searched_by_suffix_and_content(folder):
    (found,) = sensor_inputs([str(folder)], "tap")
    assert found.sensor == "tap"
    assert [os.path.relpath(path, folder) for path in found.files] == CAPTURES


def test_patterns_go_into_folders(folder):
    (found,) = sensor_inputs([f"{folder}/**/*.pcap*"])
    assert [os.path.relpath(path, folder) for path in found.files] == ["a/one.pcapng", "b/two.pcap", "top.pcap.gz"]


def test_a_pattern_of_folders_alone_is_of_what_is_in_them(folder):
    (found,) = sensor_inputs([f"{folder}/[ab]"])
    assert [os.path.relpath(path, folder) for path in found.files] == CAPTURES[:-1]


def test_a_file_is_read_once_however_often_it_is_named(folder):
    (folder / "link.pcap").symlink_to(folder / "b" / "two.pcap")
    names = [str(folder / "b" / "two.pcap"), str(folder), f"{folder}/b/*", str(folder / "b" / ".." / "b" / "two.pcap")]
    assert len(sensor_inputs(names)[0].files) == len(CAPTURES)


def test_a_name_is_not_a_pattern_if_there_is_such_a_file(folder):
    path = folder / "day[1].pcap"
    path.write_bytes(b"")
    assert sensor_inputs([str(path)])[0].files == (str(path),)


def test_standard_input_is_an_input():
    assert sensor_inputs(["-"], "tap") == [("tap", ("-",))]


@pytest.mark.parametrize(
    ("sensor_from", "expected"),
    [("file", CAPTURES), ("folder", ["a", "b", "ROOT"])],
)
def test_each_file_or_folder_can_be_a_sensor(folder, sensor_from, expected):
    """They are named by their path from the folder that is common to all."""
    found = sensor_inputs([str(folder)], sensor_from=sensor_from)
    assert [sensor.sensor for sensor in found] == [folder.name if name == "ROOT" else name for name in expected]
    assert sorted(path for sensor in found for path in sensor.files) == [str(folder / name) for name in CAPTURES]


def test_one_file_as_a_sensor_has_its_own_name(folder):
    (found,) = sensor_inputs([str(folder / "b" / "two.pcap")], sensor_from="file")
    assert found.sensor == "two.pcap"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.pcap", "there is no such file or folder"),
        ("*.snoop", "no file matches this pattern"),
        ("empty", "no capture files in this folder"),
    ],
)
def test_what_is_not_there_is_one_line(folder, name, told):
    (folder / "empty").mkdir()
    with pytest.raises(InputError) as refused:
        sensor_inputs([str(folder / name)])
    assert str(refused.value).startswith(f"{folder / name}: {told}")


def test_no_input_is_one_line():
    with pytest.raises(InputError, match=r"^no input: "):
        sensor_inputs([])


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch, caplog):
    """The one that was asked for is an error, one below it a warning."""
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == refused:
            raise PermissionError(13, "Permission denied", refused)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = str(folder / "a")
    (found,) = sensor_inputs([str(folder)])
    assert len(found.files) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{refused}: cannot be read and is left out: Permission denied"
    ]
    refused = str(folder)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        sensor_inputs([str(folder)])
