"""Flows with made-up features, and small forests trained on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sink_testing

from transforms.model.folder import FOREST, Model, write_model_folder
from transforms.model.forest import ydf_library
from transforms.model.inputs import model_inputs

SET = "flowbeam@1"
FEATURES = ("fwd_packets", "rev_packets", "flow_duration_us", "flow_iat_mean_us", "flow_syn_count")
"""The last three are null here and there."""

CLASSES = ("benign", "flood", "scan")


def made_up_flows(rows: int, seed: int = 1) -> pa.RecordBatch:
    """Flows of which only the features differ."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name in FEATURES:
        values = rng.integers(0, 100, rows).tolist()
        known = rng.random(rows) > (0.1 if name.startswith("flow_") else 0)
        columns[name] = [value if there else None for value, there in zip(values, known, strict=True)]
    return sink_testing.flows(range(rows), (SET,), **columns)


def classes_of(flows: pa.RecordBatch, classes: Sequence[str] = CLASSES) -> np.ndarray:
    """A rule that trees can learn: which class each flow is."""
    inputs = model_inputs(flows, SET, FEATURES)
    busy = inputs["fwd_packets"] + np.nan_to_num(inputs["flow_syn_count"], nan=50)
    return np.array(classes)[np.digitize(busy, [100, 150][: len(classes) - 1])]


def train(flows: pa.RecordBatch, classes: Sequence[str] = CLASSES, learner: str = "GradientBoostedTrees", **how: Any):
    """A small forest that learned the rule; YDF's model."""
    ydf = ydf_library()
    columns = [ydf.Feature(name, ydf.Semantic.NUMERICAL) for name in FEATURES]
    make = getattr(ydf, f"{learner}Learner")
    learner = make(label="label", features=columns, **{"num_trees": 10, "max_depth": 4, **how})
    return learner.train({**model_inputs(flows, SET, FEATURES), "label": classes_of(flows, classes)})


def described(trees: Any, name: str = "office", **changes: Any) -> Model:
    """What `model.json` says of such a forest."""
    classes = tuple(map(str, trees.label_classes()))
    said: dict[str, Any] = {
        "name": name,
        "created": "2026-01-05T08:00:00Z",
        "flowbeam": "0.1.0",
        "task": "binary" if len(classes) == 2 else "multiclass",
        "feature_set": SET,
        "features": tuple(sorted(FEATURES, key=made_up_flows(0).schema.names.index)),
        "classes": classes,
        "benign": "benign",
        "threshold": 0.5,
        "training": {},
        "metrics": {},
    }
    return Model(**{**said, **changes})


def save(trees: Any, folder: Path, **changes: Any) -> Model:
    """Puts the forest into a model folder."""
    return write_model_folder(folder, described(trees, **changes), lambda place: trees.save(str(place / FOREST)))
