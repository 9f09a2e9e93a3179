"""Forests of decision trees, by YDF: opening those of model folders, and what they say of flows."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transforms.features import sets
from transforms.model.folder import FOREST, Model, look_at, read_model_folder
from transforms.records import InputError

_TRIES = 5

_THREADS = 3 * (os.cpu_count() or 1)
"""Of a call: threads begin on one core, and where each has a whole core's share, the others wait for it to move."""


class Verdicts(NamedTuple):
    """What a model says of flows.

    Attributes:
        score: The probability that a flow is not benign; `float32[n]`.
        predicted: The most probable class, by its number; of an alert, the most probable one that is not benign;
            `int64[n]`.
        alert: Whether the score reaches the threshold; `bool[n]`.
    """

    score: np.ndarray
    predicted: np.ndarray
    alert: np.ndarray


class Forest:
    """A forest that is ready to use.

    Args:
        model: What its folder says of it.
        trees: YDF's model.

    Attributes:
        model: As above.
        trees: As above.

    Raises:
        InputError: They do not belong together.
    """

    def __init__(self, model: Model, trees: Any) -> None:
        self.model = model
        self.trees = trees
        _check(model, trees)
        self._benign = model.classes.index(model.benign)

    def probabilities(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """The probability of each class; `float32[n, n_classes]`.

        A row's probabilities are the same whatever rows stand beside it.

        Args:
            inputs: `float32[n]` for each of the model's features, NaN where a value is missing.
        """
        found = self.trees.predict(inputs, num_threads=_THREADS)
        if found.ndim == 1:
            return np.stack([1 - found, found], axis=1)
        return found

    def verdicts(self, probabilities: np.ndarray, threshold: float) -> Verdicts:
        """What the probabilities mean, with alerts from `threshold` on."""
        return decide(probabilities, self._benign, threshold)


def decide(probabilities: np.ndarray, benign: int, threshold: float) -> Verdicts:
    """Verdicts from the probabilities of classes, `float32[n, n_classes]`; `benign` is the number of that class."""
    others = np.delete(probabilities, benign, axis=1)
    score = others[:, 0].copy() if others.shape[1] == 1 else np.maximum(1 - probabilities[:, benign], 0)
    alert = score >= np.float32(threshold)
    worst = others.argmax(axis=1)
    worst += worst >= benign
    return Verdicts(score, np.where(alert, worst, probabilities.argmax(axis=1)), alert)


def open_forest(folder: Path) -> Forest:
    """Opens the model of a folder; one that is replaced meanwhile is opened anew.

    Raises:
        InputError: The folder is no whole model, or YDF cannot read its forest.
    """
    for _ in range(_TRIES):
        before = look_at(folder)
        try:
            place = folder.resolve()
            forest = Forest(read_model_folder(folder), load_trees(place / FOREST))
        except InputError:
            if look_at(folder) == before:
                raise
            continue
        if look_at(folder) == before:
            return forest
    raise InputError(f"model {folder}: changes all the time; wait until it is written")


def load_trees(folder: Path) -> Any:
    """A forest as YDF or TensorFlow Decision Forests saved it.

    Raises:
        InputError: It is none, or YDF is not installed.
    """
    ydf = ydf_library()
    try:
        if (folder / "saved_model.pb").exists():
            return ydf.from_tensorflow_decision_forests(str(folder))
        return ydf.load_model(str(folder))
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"model {folder}: YDF cannot read the forest: {reason}") from error


def ydf_library() -> Any:
    """The module `ydf`, told to be quiet.

    Raises:
        InputError: It is not installed.
    """
    try:
        import ydf
    except ImportError as error:
        raise InputError(f"models need the library ydf, and it cannot be imported: {error}; pip install ydf") from error
    ydf.verbose(0)
    return ydf


def _check(model: Model, trees: Any) -> None:
    if trees.task().name != "CLASSIFICATION":
        raise InputError(f"model {model.name}: its forest does {trees.task().name}, not CLASSIFICATION; train it again")
    classes = tuple(map(str, trees.label_classes()))
    numbered = tuple(map(str, range(len(classes))))
    if len(classes) != len(model.classes) or classes not in (model.classes, numbered):
        raise InputError(
            f"model {model.name}: the classes of its forest are {', '.join(classes)}, those of model.json"
            f" {', '.join(model.classes)}; train it again"
        )
    absent = sorted(set(trees.input_feature_names()) - set(model.features))
    if absent:
        raise InputError(
            f"model {model.name}: its forest needs {sets.some(absent)}, which is not among the features of model.json;"
            " train it again"
        )
