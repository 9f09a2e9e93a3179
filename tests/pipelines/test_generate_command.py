import subprocess
import sys

import pytest

from pipelines.generate import main
from sources.generate.profiles import PROFILES


def test_writes_capture_and_labels_and_says_so(tmp_path, capsys):
    output, truth = tmp_path / "a.pcap", tmp_path / "a.csv"
    assert main(["--output", str(output), "--packets", "300", "--seed", "4", "--labels", str(truth)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{output}: 300 packets, ")
    assert said.err == ""
    assert truth.read_text().startswith("flow_id,class,name,src_ip,src_port,dst_ip,dst_port,protocol,flow_first_ns\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.pcap"]


def test_quiet_says_nothing(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "a.pcap"), "--packets", "3", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("start", "seconds"),
    [
        ("2026-01-05T08:00:00Z", 1_767_600_000),
        ("2026-01-05T09:00:00.5+01:00", 1_767_600_000),
        ("2026-01-05", 1_767_571_200),
    ],
    ids=["default", "zone", "date"],
)
def test_start_is_the_time_of_the_first_packets(tmp_path, start, seconds):
    output = tmp_path / "a.pcap"
    assert (
        main(["--output", str(output), "--packets", "100", "--start", start, "--profile", "syn-flood", "--quiet"]) == 0
    )
    assert seconds <= int.from_bytes(output.read_bytes()[24:28], "little") < seconds + 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--packets", "0"], "flowbeam: --packets=0: must be at least 1\n"),
        (["--start", "tomorrow"], "flowbeam: --start=tomorrow: not a time such as 2026-01-05T08:00:00Z\n"),
        (["--start", "1969-12-31"], "flowbeam: --start: must be a time from 1970 to 2037\n"),
        (["--profile", "home"], f"flowbeam: --profile=home: no such profile; there are {', '.join(PROFILES)}\n"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(tmp_path, capsys, wrong, message):
    assert main(["--output", str(tmp_path / "a.pcap"), "--packets", "5", *wrong]) == 2
    assert capsys.readouterr() == ("", message)
    assert list(tmp_path.iterdir()) == []


def test_help_describes_every_profile(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text and profile.doc in text for name, profile in PROFILES.items())


def test_starts_without_beam():
    """The generator starts fast."""
    code = "import sys, pipelines.generate; print('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
