"""Flows get a score: how probable it is that they are not benign, and which class they are."""

import logging
import resource
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.ml.inference import base
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.transforms.util import BatchElements

from transforms import fields
from transforms.fields import Field
from transforms.model.inputs import model_inputs
from transforms.model.live import LiveModel, ScoreSettings, feature_set_of
from transforms.model.reasons import REASONS, reasons

if base.resource is None:  # Beam loses it where torch is not installed, and then warns that memory cannot be measured
    base.resource = resource

ROWS_AT_ONCE = 32_768
"""Four whole batches of flows: some 0.79 of what YDF alone reaches. Eight reach 0.82, and hold 80 MB more."""

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
        inference = RunInference(_FlowScorer(self._settings))
        return flows | "Infer" >> inference.with_output_types(pa.RecordBatch)


class _FlowScorer(ModelHandler[pa.RecordBatch, pa.RecordBatch, LiveModel]):
    """Scores up to `ROWS_AT_ONCE` flows of a bundle together: each call of YDF has a price of its own by the column."""

    def __init__(self, settings: ScoreSettings) -> None:
        super().__init__()
        self._settings = settings
        self._scored = Metrics.counter("score", "flows_scored")
        self._alerts = Metrics.counter("score", "alerts_raised")

    def load_model(self) -> LiveModel:
        logging.getLogger(BatchElements.__module__).setLevel(logging.WARNING)  # a line of statistics for each bundle
        return LiveModel(self._settings)

    def run_inference(
        self, batch: Sequence[pa.RecordBatch], model: LiveModel, inference_args: dict[str, Any] | None = None
    ) -> Sequence[pa.RecordBatch]:
        scored, alerts = score(batch, model, self._settings)
        self._scored.inc(sum(map(len, batch)))
        self._alerts.inc(alerts)
        return scored

    def batch_elements_kwargs(self) -> dict[str, Any]:
        return {"min_batch_size": ROWS_AT_ONCE, "max_batch_size": ROWS_AT_ONCE, "element_size_fn": len}

    def get_num_bytes(self, batch: Sequence[pa.RecordBatch]) -> int:
        return sum(flows.get_total_buffer_size() for flows in batch)

    def override_metrics(self, metrics_namespace: str = "") -> bool:
        return True  # counters of ours, beside those of the other steps


def fields_of(settings: ScoreSettings) -> tuple[Field, ...]:
    """The columns that scored flows get."""
    return (*SCORE, EXPLANATION) if settings.explain else SCORE


def score(
    batches: Sequence[pa.RecordBatch], live: LiveModel, settings: ScoreSettings
) -> tuple[list[pa.RecordBatch], int]:
    """Batches of one schema, each with the columns `fields_of(settings)` more, and how many flows are alerts."""
    forest, explainer = live.scorer(batches[0].schema.names)
    model = forest.model
    threshold = model.threshold if settings.threshold is None else settings.threshold
    inputs = model_inputs(pa.Table.from_batches(batches), feature_set_of(model), model.features)
    found = forest.probabilities(inputs)
    scored, alerts, begin = [], 0, 0
    for flows in batches:
        rows = slice(begin, begin + len(flows))
        begin += len(flows)
        score, predicted, alert = forest.verdicts(found[rows], threshold)
        columns = [
            pa.array(score),
            pa.array(model.classes).take(pa.array(predicted)),
            pa.array(alert),
            pa.repeat(model.id, len(flows)),
        ]
        if explainer is not None:
            of_alerts = np.stack([inputs[name][rows][alert] for name in model.features])
            moved = explainer.contributions(of_alerts, predicted[alert])
            columns.append(reasons(alert, model.features, of_alerts.T, moved, settings.explain))
        scored.append(_appended(flows, fields_of(settings), columns))
        alerts += int(alert.sum())
    return scored, alerts


def _appended(flows: pa.RecordBatch, added: Sequence[Field], columns: Sequence[pa.Array]) -> pa.RecordBatch:
    schema = flows.schema
    for field in fields.arrow_schema(added):
        schema = schema.append(field)
    return pa.RecordBatch.from_arrays([*flows.columns, *columns], schema=schema)
