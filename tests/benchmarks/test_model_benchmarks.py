"""The measures of models run: what they print on little data is of the right kind."""

import os
import re
import subprocess
import sys

import numpy as np
from command_testing import TOP


def said_by(script, *words, **environment):
    """What a benchmark prints, as its user runs it."""
    command = [sys.executable, str(TOP / "benchmarks" / script), *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **environment})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_scoring_is_measured_beside_ydf_alone():
    said = said_by("scoring.py", "--model", str(TOP / "models" / "demo"), "--flows", "8192", "--repeat", "1")
    assert said.startswith("8,192 flows, ")
    assert re.findall(r"^(.+?)  +-?[\d,]+ (\w+)/s +-?[\d,]+$", said, re.MULTILINE) == [
        ("YDF alone", "flows"),
        ("inside the pipeline", "flows"),
        ("explained", "alerts"),
    ]


def test_a_stream_is_answered_window_by_window(tmp_path):
    """Two classes that alternate, one number apart: learned at once, while the label before is always wrong."""
    random = np.random.default_rng(1)
    rows = [f"{i % 2 + random.random() / 2},{random.random()},{i % 2}" for i in range(200)]
    (tmp_path / "labelled").mkdir()
    (tmp_path / "labelled" / "cicids2017_0.01km.csv").write_text("\n".join(["a,b,Labelb", *rows]) + "\n")
    said = said_by("quality.py", "--only", "test-then-train", FLOWBEAM_CORPUS=str(tmp_path))
    figures = dict(re.findall(r"^  (flowbeam|same label).* accuracy ([\d.]+)", said, re.MULTILINE))
    assert float(figures["flowbeam"]) > 0.9
    assert float(figures["same label"]) < 0.1
