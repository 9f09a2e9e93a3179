"""Why a flow is an alert: the features that moved its margin most, as a column of flows."""

import numpy as np
import pyarrow as pa

REASON = pa.struct(
    [
        pa.field("feature", pa.string()),  # published name
        pa.field("value", pa.float32()),  # null where the flow has none
        pa.field("direction", pa.string()),  # RAISES or LOWERS
        pa.field("contribution", pa.float32()),  # what it adds to the margin
    ]
)
"""One feature of an explanation."""

REASONS = pa.list_(REASON)

RAISES, LOWERS = "raises", "lowers"
"""The feature's value speaks for the class that the flow is said to be; it speaks for benign."""


def reasons(
    alert: np.ndarray, features: tuple[str, ...], values: np.ndarray, contributions: np.ndarray, most: int
) -> pa.Array:
    """For each alert the features that moved its margin most, largest first; null for other flows.

    Features that moved nothing are left out, and of equal ones the earlier of the set comes first.

    Args:
        alert: Which flows are alerts; `bool[n]`.
        features: Names of the features.
        values: Those of the alerts, NaN where a value is missing; `float32[n_alerts, n_features]`.
        contributions: What each feature added to each alert's margin; `float64[n_alerts, n_features]`.
        most: How many features to name.
    """
    order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :most]
    moved = np.take_along_axis(contributions, order, axis=1)
    told = moved != 0
    counts = np.zeros(len(alert), np.int64)
    counts[alert] = told.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    found = np.take_along_axis(values, order, axis=1)[told]
    words = pa.array([LOWERS, RAISES]).take(pa.array((moved[told] > 0).astype(np.int8)))
    columns = [
        pa.array(features, pa.string()).take(pa.array(order[told])),
        pa.array(found, pa.float32(), mask=np.isnan(found)),
        words,
        pa.array(moved[told], pa.float64()).cast(pa.float32()),
    ]
    named = pa.StructArray.from_arrays(columns, fields=list(REASON))
    return pa.ListArray.from_arrays(pa.array(offsets), named, type=REASONS, mask=pa.array(~alert))
