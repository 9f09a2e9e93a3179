"""The example of docs/add_a_sink.md, from the page itself, at work in the main job."""

import re
import sys
from pathlib import Path

import pytest

import sinks
from pipelines import flows, generate

PAGE = Path(__file__).parents[1] / "docs" / "add_a_sink.md"


@pytest.fixture
def talkers(tmp_path, monkeypatch):
    """The example as one more module of `sinks`."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "talkers.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(sinks, "__path__", [*sinks.__path__, str(tmp_path)])
    yield
    sys.modules.pop("sinks.talkers", None)
    vars(sinks).pop("talkers", None)


@pytest.fixture
def capture(tmp_path):
    """A small capture of demo traffic."""
    path = tmp_path / "demo.pcap"
    assert generate.main(["--output", str(path), "--packets", "2000", "--quiet"]) == 0
    return path


def run(tmp_path, capture, output):
    arguments = ["--runner=DirectRunner", "--quiet", f"--input={capture}", "--features=flowtbag@1"]
    return flows.main([*arguments, f"--output={output}", f"--rejects={tmp_path / 'rejects'}"])


@pytest.mark.usefixtures("talkers")
def test_the_example_prints_the_busiest_pairs(tmp_path, capture, capsys):
    assert run(tmp_path, capture, "talkers:-?most=3") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    octets = [int(line[2]) for line in lines]
    assert len(lines) == 3
    assert octets == sorted(octets, reverse=True)
    assert octets[-1] > 0


@pytest.mark.usefixtures("talkers")
@pytest.mark.parametrize(
    ("output", "told"),
    [("talkers:-?most=none", "most=none is no positive number"), ("talkers:-?least=1", "unknown parameter 'least'")],
    ids=["bad-value", "unknown-parameter"],
)
def test_a_wrong_setting_of_the_example_is_one_line(tmp_path, capture, capsys, output, told):
    assert run(tmp_path, capture, output) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
