"""Forests of TensorFlow Decision Forests are read without TensorFlow, and ours are written for it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_testing import CLASSES, FEATURES, SET, classes_of, described, made_up_flows, save, train

from transforms.model.folder import FOREST, write_model_folder
from transforms.model.forest import Forest, load_trees, open_forest
from transforms.model.inputs import model_inputs
from transforms.model.savedmodel import export_savedmodel
from transforms.records import InputError

TOP = Path(__file__).parents[3]
SAMPLE = Path(__file__).parent / "tensorflow_forest"
"""Written by tests/tensorflow_models.py: a SavedModel, and what TensorFlow said of the flows."""

FLOWS = made_up_flows(300)
INPUTS = model_inputs(FLOWS, SET, FEATURES)


def test_a_forest_of_tensorflow_says_the_same_here():
    """Without TensorFlow, to 1e-6, missing values included."""
    said = np.load(SAMPLE / "said.npy")
    forest = Forest(described(train(FLOWS)), load_trees(SAMPLE / "trained"))
    np.testing.assert_allclose(forest.probabilities(INPUTS), said, rtol=0, atol=1e-6)
    assert (np.array(CLASSES)[said.argmax(axis=1)] == classes_of(FLOWS)).mean() > 0.8


def test_it_may_be_the_forest_of_a_model_folder(tmp_path):
    copied = tmp_path / "copied"
    write_model_folder(
        copied, described(train(FLOWS)), lambda place: shutil.copytree(SAMPLE / "trained", place / FOREST)
    )
    assert open_forest(copied).trees.num_trees() == load_trees(SAMPLE / "trained").num_trees()


def test_what_is_there_is_not_written_over(tmp_path):
    with pytest.raises(InputError, match=r"--export_savedmodel .* is there already"):
        export_savedmodel(tmp_path / "office", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed here")
def test_without_tensorflow_nothing_is_exported(tmp_path):
    save(train(FLOWS, num_trees=1), tmp_path / "office")
    with pytest.raises(InputError, match=r"needs tensorflow, which is not installed; pip install 'flowbeam\[tfdf\]'"):
        export_savedmodel(tmp_path / "office", tmp_path / "saved")


@pytest.fixture(scope="module")
def tensorflow():
    """A Python that has TensorFlow Decision Forests and this project, in an environment kept beside the servers."""
    place = Path.home() / ".cache" / "flowbeam" / "tfdf"
    python = place / "bin" / "python"
    if sys.version_info >= (3, 13):
        pytest.skip("there is no TensorFlow Decision Forests for Python 3.13")
    if not (place / ".installed").exists():
        commands = (
            [sys.executable, "-m", "venv", str(place)],
            [str(python), "-m", "pip", "install", "--quiet", "--editable", f"{TOP}[tfdf]"],
        )
        for command in commands:
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode and os.environ.get("CI") != "true":
                pytest.skip(f"TensorFlow Decision Forests cannot be installed: {made.stderr[-300:]}")
            made.check_returncode()
        (place / ".installed").touch()
    return python


def ran(python, *words):
    """What a command said, in that environment."""
    finished = subprocess.run([str(python), *words], capture_output=True, text=True, cwd=TOP, timeout=1800)
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.mark.slow
def test_ours_and_theirs_in_an_environment_with_tensorflow(tensorflow, tmp_path):
    """What TensorFlow says with its own forest and with one that the command exports, YDF says to 1e-6."""
    trees = train(FLOWS)
    save(trees, tmp_path / "office")
    numbers = np.array([CLASSES.index(name) for name in classes_of(FLOWS)])
    np.savez(tmp_path / "flows.npz", **INPUTS, label=numbers)
    command = ("-m", "pipelines.train", "--output", str(tmp_path / "office"))
    exported = ran(tensorflow, *command, "--export_savedmodel", str(tmp_path / "exported"))
    assert exported.stdout == f"{tmp_path}/exported: {tmp_path}/office as a TensorFlow SavedModel\n"
    assert "Traceback" not in exported.stderr  # TensorFlow says much there about devices that it does not find
    ran(tensorflow, str(TOP / "tests" / "tensorflow_models.py"), str(tmp_path))
    said = np.load(tmp_path / "said.npz")
    np.testing.assert_allclose(trees.predict(INPUTS), said["exported"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(load_trees(tmp_path / "trained").predict(INPUTS), said["trained"], rtol=0, atol=1e-6)
