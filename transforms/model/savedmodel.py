"""Models for TensorFlow: a forest as a SavedModel."""

import contextlib
import importlib.util
import io
import os
import shutil
from pathlib import Path

from transforms.model.forest import open_forest
from transforms.records import InputError


def export_savedmodel(folder: Path, output: Path) -> None:
    """Writes a model as a TensorFlow SavedModel, which predicts the same without YDF or flowbeam.

    It is one of Keras, as `tensorflow_decision_forests` writes it: a dictionary of columns in, `float32[n, 1]` each by
    its feature's name; probabilities out, of the second class alone where there are two.

    Args:
        folder: The model.
        output: A new folder.

    Raises:
        InputError: There is no model, the folder is taken, or TensorFlow is not installed.
    """
    if output.exists():
        raise InputError(f"--export_savedmodel {output}: is there already; name another folder")
    for name in ("tensorflow", "tensorflow_decision_forests"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--export_savedmodel needs {name}, which is not installed; pip install 'flowbeam[tfdf]'")
    forest = open_forest(folder)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    hidden = output.with_name(f".{output.name}.{os.getpid()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Keras says on it what it does
            forest.trees.to_tensorflow_saved_model(str(hidden), mode="keras")
        hidden.rename(output)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
