"""The systemd unit of a sensor: systemd understands it, it asks for one right only, and the sensor its options."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.capture_options import parse_options

UNIT = Path(__file__).parents[2] / "deploy" / "flowbeam-sensor@.service"
MOST_EXPOSED = 2.5
"""Of `systemd-analyze security`, where 10 is root without any bounds."""


@pytest.fixture
def unit(tmp_path):
    """The unit for eth0, of a program that exists."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/flowbeam/bin/python", "/bin/true")
    path = tmp_path / "flowbeam-sensor@eth0.service"
    path.write_text(text, encoding="utf-8")
    return path


def analyzed(*arguments: str) -> str:
    ran = subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
    )
    if "Unknown option" in ran.stderr or "unrecognized option" in ran.stderr:
        pytest.skip("this systemd-analyze is too old")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def test_systemd_understands_it(unit):
    assert str(unit.name) not in analyzed("verify", "--man=no", str(unit))


def test_it_is_hardened(unit):
    """What it needs beyond nothing is to open packet sockets and to reach its queue."""
    said = analyzed("security", "--offline=true", str(unit))
    assert float(re.search(r"exposure level for .*: ([\d.]+)", said)[1]) <= MOST_EXPOSED


def test_it_has_one_capability():
    text = UNIT.read_text(encoding="utf-8")
    assert re.findall(r"^\w*Capabilit\w+=(.*)$", text, re.MULTILINE) == ["CAP_NET_RAW", "CAP_NET_RAW"]


def test_the_sensor_takes_its_options():
    """Those of the unit, and those that its head shows for the environment file."""
    text = UNIT.read_text(encoding="utf-8")
    shown = re.search(r'FLOWBEAM_OPTIONS=([^"]+)"', text)[1]
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1].replace("$FLOWBEAM_OPTIONS", shown)
    program, *arguments = shlex.split(command.replace("%I", "eth0").replace("%i", "eth0"))
    assert (program, arguments[:2]) == ("/opt/flowbeam/bin/python", ["-m", "pipelines.capture"])
    options = parse_options(arguments[2:])
    assert (options.kind, options.names) == ("interface", ["eth0"])
