"""Whether a model still fits the flows that it scores: `MonitorDrift`."""

import os

import apache_beam as beam
import pyarrow as pa

from transforms.drift.compare_inputs import CompareInputs
from transforms.drift.inputs import InputsRule
from transforms.drift.judge_answers import AnswersRule, JudgeAnswers
from transforms.drift.models import WatchedModels, read_watched
from transforms.records import InputError


class MonitorDrift(beam.PTransform):
    """Tells whether inputs have changed, and whether the model has decayed: two alarms that have nothing in common.

    Input: record batches of scored flows, bounded or not. Output: record batches of rows (`rows.FIELDS`), as
    `CompareInputs` and `JudgeAnswers` give them. Flows are not changed or held back.

    Args:
        folder: The folder of the model that scores the flows; the next ones will be there, too.
        inputs: How inputs are compared.
        answers: How answers are judged.
        labels: Labels that come back, record batches of `answers.LABELS`; None if none do.

    Raises:
        InputError: The model has no reference, or its answers were never judged and labels are given.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        inputs: InputsRule,
        answers: AnswersRule | None = None,
        labels: beam.PCollection[pa.RecordBatch] | None = None,
    ) -> None:
        super().__init__()
        self.models = WatchedModels(folder)
        self.inputs, self.answers = inputs, answers or AnswersRule()
        self.labels = labels
        if labels is not None and not read_watched(self.models.folder).reference.judged:
            raise InputError(
                f"model {folder}: was never judged, so labels cannot tell whether it is worse; train it again"
            )
        read_watched(self.models.folder)

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Applies the transform."""
        compared = flows | "CompareInputs" >> CompareInputs(self.models, self.inputs)
        if self.labels is None:
            return compared
        judged = (flows, self.labels) | "JudgeAnswers" >> JudgeAnswers(self.models, self.answers)
        return (compared, judged) | "AllRows" >> beam.Flatten()
