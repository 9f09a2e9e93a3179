"""What labels mean: which class is no alert, and how the labels of one table fit the classes of a model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.tables import Table
from transforms.features import sets
from transforms.records import InputError

BENIGN_WORDS = ("benign", "normal", "background", "legitimate", "clean", "none", "0", "false", "no", "-")
"""How tables call traffic that is no attack, in lower case."""

ATTACK = "attack"
"""What all other classes are called together."""

BINARY, MULTICLASS = "binary", "multiclass"


class Fitted(NamedTuple):
    """A table whose labels are those of a model.

    Attributes:
        table: With the model's classes first, then those that it does not know.
        unknown: The latter.
    """

    table: Table
    unknown: tuple[str, ...]


def benign_class(classes: Sequence[str], asked: str = "") -> str | None:
    """The class that is no alert; None where no name tells.

    Raises:
        InputError: The one that was asked for is not there.
    """
    if asked:
        same = [name for name in classes if name.lower() == asked.lower()]
        if not same:
            raise InputError(f"--benign {asked}: is no label of the data; there are {sets.some(list(classes))}")
        return same[0]
    by_word = {name.lower(): name for name in classes}
    return next((by_word[word] for word in BENIGN_WORDS if word in by_word), None)


def prepared(table: Table, task: str, asked: str = "") -> tuple[Table, str, str]:
    """The table with its benign class first, the task, and the name of that class.

    Args:
        table: As it was read.
        task: `binary`, `multiclass`, or empty for what the labels are.
        asked: The benign class; empty where its name tells.

    Raises:
        InputError: There is one class only, or it cannot be told which one is benign.
    """
    if len(table.classes) < 2:
        raise InputError(
            f"all {len(table):,} labelled rows are {table.classes[0]!r}: there must be rows of another class"
        )
    benign = benign_class(table.classes, asked)
    if benign is None:
        raise InputError(f"which label is no attack? name one with --benign: {sets.some(list(table.classes), 10)}")
    others = [name for name in table.classes if name != benign]
    merged = task == BINARY and len(others) > 1
    names = [benign, ATTACK] if merged else [benign, *others]
    table = table.with_labels(
        names, [0 if name == benign else 1 if merged else names.index(name) for name in table.classes]
    )
    return table, BINARY if len(names) == 2 else MULTICLASS, benign


def fitted(table: Table, classes: Sequence[str], benign: str) -> Fitted:
    """The table with a model's classes.

    Upper and lower case are the same. For a model of two classes, every other label than the benign one is the other.

    Raises:
        InputError: The labels have nothing to do with the classes.
    """
    place = {name.lower(): i for i, name in enumerate(classes)}
    known = [name.lower() in place for name in table.classes]
    if len(classes) == 2 and not all(known):
        theirs = next((name for name in table.classes if name.lower() == benign.lower()), None)
        theirs = theirs or benign_class(table.classes)
        if theirs is not None or any(known):
            at = classes.index(benign)
            codes = [at if name == theirs else place.get(name.lower(), 1 - at) for name in table.classes]
            return Fitted(table.with_labels(classes, codes), ())
    if not any(known):
        raise InputError(
            f"none of the labels {sets.some(list(table.classes))} is a class of the model,"
            f" which knows {sets.some(list(classes))}"
        )
    unknown = [name for name, is_known in zip(table.classes, known, strict=True) if not is_known]
    names = [*classes, *unknown]
    codes = [
        place.get(name.lower(), len(classes) + unknown.index(name) if name in unknown else 0) for name in table.classes
    ]
    return Fitted(table.with_labels(names, codes), tuple(unknown))


def known_first(table: Table, train: np.ndarray, benign: str) -> tuple[Table, int]:
    """The table with the classes that some rows to learn from have first, and how many those are.

    Raises:
        InputError: There is one only, or the benign one is not among them.
    """
    there = np.bincount(table.labels[train], minlength=len(table.classes)) > 0
    known = [name for name, is_there in zip(table.classes, there, strict=True) if is_there]
    if len(known) < 2 or benign not in known:
        raise InputError(
            f"the split leaves only {sets.some(known)} to learn from, of {sets.some(list(table.classes))};"
            " choose another --split"
        )
    names = [*known, *(name for name in table.classes if name not in known)]
    return table.with_labels(names, [names.index(name) for name in table.classes]), len(known)
