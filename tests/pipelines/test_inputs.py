"""What inputs are, before anything is read."""

import struct

import pytest

from pipelines.inputs import is_hopeless
from sources.captures import SensorInput

EMPTY_CAPTURE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(50)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [([PICTURE], True), ([b""], True), ([EMPTY_CAPTURE], False), ([PICTURE, EMPTY_CAPTURE], False)],
    ids=["picture", "empty-file", "capture", "one-of-two"],
)
def test_inputs_are_hopeless_if_none_is_a_capture(tmp_path, contents, expected):
    """A run that will only say what is wrong with its files compiles no kernels first."""
    files = []
    for number, octets in enumerate(contents):
        (tmp_path / f"{number}.pcap").write_bytes(octets)
        files.append(str(tmp_path / f"{number}.pcap"))
    assert is_hopeless([SensorInput("local", tuple(files))]) is expected


def test_standard_input_is_never_hopeless():
    """It cannot be looked at without taking from it."""
    assert not is_hopeless([SensorInput("local", ("-",))])
