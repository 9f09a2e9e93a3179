"""Model folders: writing what training made, and reading what a model kept of it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from training.report import write_report
from training.tables import Table
from training.train import Trained
from transforms.model.folder import FOREST, Model, write_model_folder
from transforms.records import InputError

ROWS = "rows.parquet"
"""A sample of the rows that the model learned from and was judged on; `--continue` mixes them with new ones."""

_SAVED_OCTETS = 4
"""Files of a forest are twice as large as what YDF serializes, which it compresses; and some room to spare."""

_LABEL, _TESTED = "__label", "__tested"


class Kept(NamedTuple):
    """Rows that a model keeps of its training.

    Attributes:
        train: Some that it learned from.
        test: Some that it was judged on.
    """

    train: Table
    test: Table


def save(trained: Trained, folder: Path, keep_rows: int) -> Model:
    """Writes the model folder, whole or not at all.

    Args:
        trained: What training made.
        folder: Its place.
        keep_rows: How many rows stay in it for `--continue`, in all.

    Raises:
        InputError: The place is taken or cannot be written.
    """
    kept = _kept(trained, keep_rows)

    def write_files(hidden: Path) -> None:
        _find_room(trained.trees, hidden / "room")
        trained.trees.save(str(hidden / FOREST))
        (hidden / "reference.json").write_text(trained.reference.to_json(), encoding="utf-8")
        write_metrics(trained, hidden / "metrics.json")
        write_report(trained.report, hidden / "report.html")
        if kept is not None:
            parquet.write_table(kept, hidden / ROWS, compression="zstd")

    return write_model_folder(folder, trained.model, write_files)


def _find_room(trees: Any, place: Path) -> None:
    """Raises `OSError` where the disk has no room for the forest: YDF would end the process while it saves it."""
    place.write_bytes(bytes(_SAVED_OCTETS * len(trees.serialize())))
    place.unlink()


def write_metrics(trained: Trained, path: Path) -> None:
    """All figures, with the split that they belong to."""
    report = trained.report
    said = {
        "split": report.split,
        **report.metrics.to_json(),
        "other_splits": {one.name: one.metrics.to_json() for one in report.other_splits},
        "learning_curve": [point._asdict() for point in report.learning_curve],
        "importance": dict(report.importance),
    }
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def kept_rows(folder: Path, model: Model) -> Kept:
    """The rows that a model kept.

    Raises:
        InputError: It kept none, or the file is damaged.
    """
    path = folder / ROWS
    if not path.exists():
        raise InputError(f"model {folder}: keeps no rows of its training; train it again with --keep_rows")
    try:
        rows = parquet.read_table(path)
        tested = rows.column(_TESTED).to_numpy()
        labels = rows.column(_LABEL).to_numpy().astype(np.int32)
        columns = {name: rows.column(name).to_numpy() for name in model.features}
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise InputError(f"model {folder}: {ROWS} is damaged; copy the whole folder again") from error
    table = Table(columns, labels, model.classes)
    return Kept(table.rows(~tested), table.rows(tested))


def _kept(trained: Trained, most: int) -> pa.Table | None:
    """Four fifths of rows learned from, one of rows judged, each in its order."""
    if not most:
        return None
    seed = int(trained.report.settings["seed"])
    known = trained.test.rows(trained.test.labels < len(trained.model.classes))
    train, test = trained.train.at_most_each(most - most // 5, seed), known.at_most_each(most // 5, seed)
    columns = {name: np.concatenate([train.columns[name], test.columns[name]]) for name in trained.model.features}
    labels = np.concatenate([train.labels, test.labels])
    tested = np.repeat([False, True], [len(train), len(test)])
    return pa.table({**columns, _LABEL: labels, _TESTED: tested})
