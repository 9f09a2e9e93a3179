"""The options of watching whether a model still fits."""

from argparse import ArgumentParser
from typing import Any, NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions

from transforms.drift.inputs import InputsRule
from transforms.drift.judge_answers import AnswersRule
from transforms.records import InputError

_NS_PER_S = 1_000_000_000


class DriftOptions(PipelineOptions):
    """What `pipelines.flows` understands about drift and decay, where it scores flows."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        def add(name: str, about: str, **details: Any) -> None:
            parser.add_argument(name, help=about, **details)

        window = "Windows of so long are compared with the data of the model; 0: none. Default 3600."
        add("--drift_window_s", window, metavar="S", type=float, default=3600.0)
        lateness = "On endless input, a window is compared when flows came that ended so long after it. Default 600."
        add("--drift_lateness_s", lateness, metavar="S", type=float, default=600.0)
        psi = "Mean population stability index, over the features, from which on inputs have changed. Default 0.1."
        add("--drift_psi", psi, metavar="N", type=float, default=0.1)
        least = "Windows with fewer flows are not judged. Default 200."
        add("--drift_min_flows", least, metavar="N", type=int, default=200)
        labels = (
            "Labels that come back, flow_id and label: Parquet, CSV or JSON lines, a file, a pattern, or a folder,"
            " which endless input watches."
        )
        add("--returned_labels", labels, metavar="PATH")
        label_column = "Their column with the label. Default label, or class where that is absent."
        add("--label_column", label_column, metavar="NAME", default="label")
        waiting = "Flows of endless input that wait for their label; those that ended first go. Default 1000000."
        add("--labels_wait_flows", waiting, metavar="N", type=int, default=1_000_000)
        alarms = "Labelled flows between two false alarms that the model has decayed, on average. Default 100000."
        add("--decay_run_length", alarms, metavar="N", type=float, default=100_000.0)
        place = "Folder of what is noticed about the model, or gs:// one. Default `drift` beside the first output."
        add("--drift", place, metavar="DIR")

    def check(self) -> None:
        """Refuses values that cannot be used, and nothing that only the files tell.

        Raises:
            InputError: It names the option and the value.
        """
        if self.drift_window_s and not 1 <= self.drift_window_s < 1e9:
            raise InputError(f"--drift_window_s: {self.drift_window_s:g} s; give 1 or more, or 0 for none")
        if not 0 <= self.drift_lateness_s < 1e9:
            raise InputError(f"--drift_lateness_s: {self.drift_lateness_s:g} s; give 0 or more")
        if not 0 < self.drift_psi < 100:
            raise InputError(f"--drift_psi: {self.drift_psi:g}; give more than 0, such as 0.1")
        for name in ("drift_min_flows", "labels_wait_flows"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name}: {getattr(self, name)}; give 1 or more")
        if not 10 <= self.decay_run_length < 1e15:
            raise InputError(f"--decay_run_length: {self.decay_run_length:g}; give 10 or more")
        if self.returned_labels is not None and not self.drift_window_s:
            raise InputError(
                "--returned_labels: nothing is compared with --drift_window_s=0; give a window, or leave them out"
            )


class DriftSettings(NamedTuple):
    """What the options ask for.

    Attributes:
        inputs: How inputs are compared.
        answers: How answers are judged.
        labels: Where labels come from; None if none do.
        label_column: Their column with the label.
        folder: Where rows go; None: beside the first output.
    """

    inputs: InputsRule
    answers: AnswersRule
    labels: str | None
    label_column: str
    folder: str | None


def settings_of(options: DriftOptions) -> DriftSettings | None:
    """What the options ask for; None if nothing is to be compared."""
    if not options.drift_window_s:
        return None
    return DriftSettings(
        InputsRule(
            int(options.drift_window_s * _NS_PER_S),
            int(options.drift_lateness_s * _NS_PER_S),
            options.drift_psi,
            options.drift_min_flows,
        ),
        AnswersRule(options.decay_run_length, options.labels_wait_flows),
        options.returned_labels,
        options.label_column,
        options.drift or None,
    )
