"""The example of docs/add_a_feature.md, from the page itself, at work in the main job."""

import re
import struct
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import flows

PAGE = Path(__file__).parents[1] / "docs" / "add_a_feature.md"

CONGESTED, CAPABLE = 3, 2
"""The two bits of ECN in the IP header (RFC 3168)."""


FAMILY = ("--features=flowtbag@1", "--feature_module=mypackage.congestion")


def udp_frame(is_answer: bool, ecn: int) -> bytes:
    """A UDP packet without payload between 10.0.0.1:1000 and 10.0.0.2:53 in an Ethernet frame."""
    addresses = [bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])]
    ports = [1000, 53]
    if is_answer:
        addresses.reverse()
        ports.reverse()
    ip = struct.pack("!BBHHHBBH", 0x45, ecn, 28, 0, 0, 64, 17, 0) + b"".join(addresses)
    return bytes(12) + b"\x08\x00" + ip + struct.pack("!HHHH", *ports, 8, 0)


def capture(frames: list[bytes]) -> bytes:
    """A pcap file with a frame each second."""
    records = (struct.pack("<IIII", second, 0, len(frame), len(frame)) + frame for second, frame in enumerate(frames))
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The example as the module that the page says it is, on the path of modules."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    folder = tmp_path / "mypackage"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "congestion.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in ("mypackage", "mypackage.congestion"):
        sys.modules.pop(name, None)


def run(tmp_path, frames, *options):
    """Status of the main job over `frames`, and its flows."""
    (tmp_path / "capture.pcap").write_bytes(capture(frames))
    arguments = ["--runner=DirectRunner", "--quiet", f"--input={tmp_path / 'capture.pcap'}"]
    status = flows.main([*arguments, f"--output=parquet:{tmp_path / 'flows'}", *options])
    return status, pq.read_table(tmp_path / "flows").to_pylist() if status == 0 else []


@pytest.mark.usefixtures("package")
def test_the_example_counts_marks_of_each_side(tmp_path):
    """Three packets of the initiator, two of them marked; one answer, capable of marks but without."""
    packets = [(False, CONGESTED), (True, CAPABLE), (False, CAPABLE), (False, CONGESTED)]
    status, (flow,) = run(tmp_path, [udp_frame(*packet) for packet in packets], *FAMILY)
    assert status == 0
    assert (flow["fwd_packets"], flow["rev_packets"]) == (3, 1)
    assert (flow["fwd_congestion_marks"], flow["rev_congestion_marks"]) == (2, 0)
    assert flow["fwd_congestion_share"] == pytest.approx(2 / 3)
    assert flow["rev_congestion_share"] == 0


@pytest.mark.usefixtures("package")
def test_the_example_has_null_where_a_side_sent_nothing(tmp_path):
    """A flow of one packet goes another way through the table."""
    _, (flow,) = run(tmp_path, [udp_frame(False, CONGESTED)], *FAMILY)
    assert (flow["fwd_congestion_marks"], flow["fwd_congestion_share"]) == (1, 1)
    assert (flow["rev_congestion_marks"], flow["rev_congestion_share"]) == (0, None)


@pytest.mark.parametrize(
    ("module", "edit", "told"),
    [
        ("mypackage.missing", ("", ""), "cannot import mypackage.missing"),
        ("mypackage.congestion", ("def features", "def feature"), "mypackage.congestion has no features"),
        ("mypackage.congestion", ("def update", "def add"), "mypackage.congestion has no update"),
        ("mypackage.congestion", ("fwd_congestion_marks", "fwd_packets"), "column fwd_packets of mypackage.congestion"),
    ],
    ids=["no-module", "no-features", "no-update", "a-column-that-exists"],
)
def test_a_module_that_is_no_family_is_one_line(tmp_path, package, capsys, module, edit, told):
    path = package / "congestion.py"
    path.write_text(path.read_text(encoding="utf-8").replace(*edit), encoding="utf-8")
    status, _ = run(tmp_path, [udp_frame(False, 0)], f"--feature_module={module}")
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert told in line
