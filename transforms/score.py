"""Flows get a score: how probable it is that they are not benign, and which class they are."""

import resource
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference import base
from apache_beam.ml.inference.base import ModelHandler, RunInference

from transforms import fields
from transforms.fields import Field
from transforms.model.inputs import model_inputs
from transforms.model.live import LiveModel, ScoreSettings, feature_set_of
from transforms.model.reasons import REASONS, reasons

if base.resource is None:  # Beam loses it where torch is not installed, and then warns that memory cannot be measured
    base.resource = resource

SCORE = (
    Field("score", pa.float32(), "", "Probability that the flow is not benign, by the model.", "", "event.risk_score"),
    Field(
        "predicted_class",
        pa.string(),
        "",
        "Most probable class; of an alert, the most probable one that is not benign.",
    ),
    Field("is_alert", pa.bool_(), "", "Whether the score reaches the threshold."),
    Field("model_id", pa.string(), "", "The model that scored the flow: its name and the hash of its files."),
)
"""The columns that every scored flow has."""

EXPLANATION = Field(
    "explanation",
    REASONS,
    "",
    "Features that moved the score of an alert most, largest first: published name, value, whether it raises or lowers"
    " the score, and by how much of the margin over benign (log-odds); null without alert.",
)
"""The column of `--explain`."""


class ScoreFlows(beam.PTransform):
    """Scores flows with the model of a folder; a new model there is taken up while the job runs.

    Input: record batches of flows with the features of the model's set. Output: the same flows in the same order, each
    batch with the columns `fields` more. A flow's score depends on its features and the model alone. A feature that is
    null is scored by the model's own rule for missing values.

    Attributes:
        fields: The columns that it appends.

    Raises:
        InputError: There is no whole model in the folder, or it cannot score flows.
    """

    def __init__(self, settings: ScoreSettings) -> None:
        super().__init__()
        self._settings = settings
        self._model = settings.open().forest.model  # whatever is wrong with it is told before anything runs
        self.fields: tuple[Field, ...] = fields_of(settings)

    def check(self, schema: pa.Schema) -> None:
        """Refuses flows that lack a column that the model needs.

        Raises:
            InputError: It names the column.
        """
        nothing = pa.RecordBatch.from_pylist([], schema)
        model_inputs(nothing, feature_set_of(self._model), self._model.features)

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """The flows, scored."""
        inference = RunInference(_FlowScorer(self._settings).with_no_batching())
        return flows | "Infer" >> inference.with_output_types(pa.RecordBatch)


class _FlowScorer(ModelHandler[pa.RecordBatch, pa.RecordBatch, LiveModel]):
    """Scores record batches as they come: Beam's own batching of single elements would take them for rows."""

    def __init__(self, settings: ScoreSettings) -> None:
        super().__init__()
        self._settings = settings
        self._scored = Metrics.counter("score", "flows_scored")
        self._alerts = Metrics.counter("score", "alerts_raised")

    def load_model(self) -> LiveModel:
        return LiveModel(self._settings)

    def run_inference(
        self, batch: pa.RecordBatch, model: LiveModel, inference_args: dict[str, Any] | None = None
    ) -> Sequence[pa.RecordBatch]:
        scored, alerts = score(batch, model, self._settings)
        self._scored.inc(len(batch))
        self._alerts.inc(alerts)
        return [scored]

    def get_num_bytes(self, batch: pa.RecordBatch) -> int:
        return batch.get_total_buffer_size()

    def override_metrics(self, metrics_namespace: str = "") -> bool:
        return True  # counters of ours, beside those of the other steps


def fields_of(settings: ScoreSettings) -> tuple[Field, ...]:
    """The columns that scored flows get."""
    return (*SCORE, EXPLANATION) if settings.explain else SCORE


def score(flows: pa.RecordBatch, live: LiveModel, settings: ScoreSettings) -> tuple[pa.RecordBatch, int]:
    """The flows with the columns `fields_of(settings)` more, and how many of them are alerts."""
    forest, explainer = live.scorer(flows.schema.names)
    model = forest.model
    inputs = model_inputs(flows, feature_set_of(model), model.features)
    threshold = model.threshold if settings.threshold is None else settings.threshold
    score, predicted, alert = forest.verdicts(forest.probabilities(inputs), threshold)
    columns = [
        pa.array(score),
        pa.array(model.classes).take(pa.array(predicted)),
        pa.array(alert),
        pa.repeat(model.id, len(flows)),
    ]
    if explainer is not None:
        values = np.stack([inputs[name][alert] for name in model.features])
        moved = explainer.contributions(values, predicted[alert])
        columns.append(reasons(alert, model.features, values.T, moved, settings.explain))
    return _appended(flows, fields_of(settings), columns), int(alert.sum())


def _appended(flows: pa.RecordBatch, added: Sequence[Field], columns: Sequence[pa.Array]) -> pa.RecordBatch:
    schema = flows.schema
    for field in fields.arrow_schema(added):
        schema = schema.append(field)
    return pa.RecordBatch.from_arrays([*flows.columns, *columns], schema=schema)
