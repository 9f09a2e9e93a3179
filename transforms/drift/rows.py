"""The rows of the `drift` output: what was compared, and what was noticed."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from transforms import fields
from transforms.fields import Field

INPUTS_COMPARED, INPUTS_CHANGED, INPUTS_TOO_FEW = "inputs_compared", "inputs_changed", "inputs_too_few"
ANSWERS_COMPARED, MODEL_DECAYED, MODEL_RECOVERED = "answers_compared", "model_decayed", "model_recovered"

EVENTS = {
    INPUTS_COMPARED: "a window's inputs are like the model's reference",
    INPUTS_CHANGED: "a window's inputs are not",
    INPUTS_TOO_FEW: "a window has too few flows to tell",
    ANSWERS_COMPARED: "answers were compared with labels that came back",
    MODEL_DECAYED: "the model is wrong more often than it was",
    MODEL_RECOVERED: "it no longer is",
}
"""What a row can tell."""

_FEATURE = pa.struct(
    [
        ("feature", pa.string()),
        ("psi", pa.float64()),
        ("p_value", pa.float64()),
        ("p_adjusted", pa.float64()),
        ("missing_share", pa.float64()),
        ("usual_missing_share", pa.float64()),
    ]
)

FIELDS = (
    Field("event", pa.string(), "", "; ".join(f"{name}: {about}" for name, about in EVENTS.items()) + "."),
    Field("model_id", pa.string(), "", "The model that answered."),
    Field("window_start_ns", pa.int64(), "ns", "Of inputs: begin of the window; of answers: the first flow's end."),
    Field("window_end_ns", pa.int64(), "ns", "Of inputs: end of the window; of answers: the last flow's end."),
    Field("flows", pa.int64(), "flows", "Flows compared; of answers: those with a label."),
    Field("psi", pa.float64(), "", "Mean over the features of the PSI beyond what chance gives; null of answers."),
    Field("score_psi", pa.float64(), "", "The same of the score."),
    Field("wrong", pa.int64(), "flows", "Flows whose answer was not their label; null of inputs."),
    Field("error_rate", pa.float64(), "", "Their part of the flows."),
    Field("usual_error_rate", pa.float64(), "", "The model's own when it was trained, at most."),
    Field("level", pa.float64(), "", "How near the alarm is: 1 is the alarm."),
    Field("features_changed", pa.int32(), "", "Features that differ significantly, corrected for their number (Holm)."),
    Field("features", pa.list_(_FEATURE), "", "Each feature and the score, with the largest PSI first."),
)
"""The columns, in order."""

SCHEMA = fields.arrow_schema(FIELDS).with_metadata({"record": "DriftEvent"})


def batch(rows: Iterable[dict[str, Any]]) -> pa.RecordBatch:
    """A record batch of rows; what a row does not name is null."""
    return pa.RecordBatch.from_pylist(list(rows), SCHEMA)
