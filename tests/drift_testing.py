"""What the tests of drift share: a model folder without a forest worth the name, and flows that it has scored."""

from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
from sink_testing import START_NS, flows

from transforms.model.folder import Model, write_model_folder
from transforms.model.reference import Reference

FEATURES = ("Flow Duration", "Total Fwd Packet")
"""Of cic@1: `flow_duration_us` and `fwd_packets`."""

SECOND_NS = 1_000_000_000

NOON_NS = START_NS - START_NS % (3600 * SECOND_NS)
"""A full hour."""


def usual(rows, seed=0):
    """Columns as those of the reference."""
    random = np.random.default_rng(seed)
    return {
        "flow_duration_us": random.integers(0, 1_000_000, rows),
        "fwd_packets": random.geometric(0.2, rows),
        "score": random.beta(0.1, 2, rows).astype(np.float32),
    }


def write_model(folder, rows=5000, judged=2000, wrong=8, seed=1, task="binary", classes=("benign", "attack")):
    """Writes a model whose reference is `rows` usual rows; returns it."""
    columns = usual(rows, seed)
    features = {
        FEATURES[0]: columns["flow_duration_us"].astype(np.float32),
        FEATURES[1]: columns["fwd_packets"].astype(np.float32),
    }
    reference = Reference.of(features, columns["score"], np.arange(judged) < wrong)

    def files(place):
        (place / "forest").mkdir()
        (place / "forest" / "none").write_text(f"{seed}")
        (place / "reference.json").write_text(reference.to_json())

    created = datetime(2026, 1, 1, tzinfo=timezone.utc).isoformat()
    model = Model(folder.name, created, "0.1.0", task, "cic@1", FEATURES, classes, "benign", 0.5, {}, {})
    return write_model_folder(folder, model, files)


def scored(model_id, numbers, columns=None, predicted="benign", end_ns=None, record_kind="final"):
    """Flow `number` ended `number` seconds after noon, or at `end_ns`."""
    numbers = list(numbers)
    columns = columns or usual(len(numbers), seed=len(numbers))
    ends = [NOON_NS + number * SECOND_NS for number in numbers] if end_ns is None else list(end_ns)
    made = flows(
        numbers,
        flow_end_ns=ends,
        flow_duration_us=columns["flow_duration_us"].tolist(),
        fwd_packets=columns["fwd_packets"].tolist(),
        record_kind=record_kind,
    )
    classes = predicted if isinstance(predicted, list) else [predicted] * len(numbers)
    for name, values in (
        ("score", pa.array(columns["score"], pa.float32())),
        ("predicted_class", pa.array(classes, pa.string())),
        ("model_id", pa.array([model_id] * len(numbers), pa.string())),
    ):
        made = made.append_column(name, values)
    return made


TOLD = []
"""The rows that jobs of this process gave."""


def tell(batch):
    """The end of a pipeline whose worker is this process."""
    TOLD.extend(batch.to_pylist())
