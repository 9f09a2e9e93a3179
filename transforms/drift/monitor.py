"""Whether a model still fits the flows that it scores: `MonitorDrift`."""

import os

import apache_beam as beam

from transforms.drift.compare_inputs import CompareInputs
from transforms.drift.inputs import InputsRule
from transforms.drift.judge_answers import AnswersRule, JudgeAnswers
from transforms.drift.models import WatchedModels, read_watched
from transforms.records import InputError


class MonitorDrift(beam.PTransform):
    """Tells whether inputs have changed, and whether the model has decayed: two alarms that have nothing in common.

    Input: record batches of scored flows, bounded or not; with labels, (flows, labels), where labels are record batches
    of `answers.LABELS` for some of them. Output: record batches of rows (`rows.FIELDS`), as `CompareInputs` and
    `JudgeAnswers` give them. Flows are not changed or held back.

    Args:
        folder: The folder of the model that scores the flows; the next ones will be there, too.
        inputs: How inputs are compared.
        answers: How answers are judged.
        with_labels: Labels come back.

    Raises:
        InputError: The model has no reference, or labels come back and its answers were never judged.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        inputs: InputsRule,
        answers: AnswersRule | None = None,
        with_labels: bool = False,
    ) -> None:
        super().__init__()
        self.models = WatchedModels(folder)
        self.inputs, self.answers, self.with_labels = inputs, answers or AnswersRule(), with_labels
        if not read_watched(self.models.folder).reference.judged and with_labels:
            raise InputError(f"model {folder}: was never judged, so labels cannot tell if it is worse; train it again")

    def expand(self, inputs):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        flows = inputs[0] if self.with_labels else inputs
        compared = flows | "CompareInputs" >> CompareInputs(self.models, self.inputs)
        if not self.with_labels:
            return compared
        judged = inputs | "JudgeAnswers" >> JudgeAnswers(self.models, self.answers)
        return (compared, judged) | "AllRows" >> beam.Flatten()
