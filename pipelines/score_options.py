"""The options of scoring."""

from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

from apache_beam.options.pipeline_options import PipelineOptions

from transforms.records import InputError

if TYPE_CHECKING:
    from transforms.model.live import ScoreSettings


class ScoreOptions(PipelineOptions):
    """What `pipelines.flows` understands of models."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        def add(name: str, about: str, **details: Any) -> None:
            parser.add_argument(name, help=about, **details)

        add("--model", "Folder of a model that scores flows; looked at again while the job runs.", metavar="DIR")
        add(
            "--explain",
            "Alerts name the N features that moved their score most. Default 0.",
            metavar="N",
            type=int,
            default=0,
        )
        add(
            "--alert_threshold",
            "Flows with this score or more are alerts. Default the model's own.",
            metavar="P",
            type=float,
        )

    def check(self) -> None:
        """Refuses options that mean nothing without a model.

        Raises:
            InputError: It names the option.
        """
        if self.model is None and (self.explain or self.alert_threshold is not None):
            name = "--explain" if self.explain else "--alert_threshold"
            raise InputError(f"{name}: there is no --model; name the folder of one")


def settings_of(options: ScoreOptions) -> "ScoreSettings | None":
    """How flows are scored; None without a model.

    Raises:
        InputError: A value is wrong.
    """
    if options.model is None:
        return None
    from transforms.model.live import ScoreSettings

    return ScoreSettings(options.model, options.explain, options.alert_threshold)


def feature_sets_for(options: ScoreOptions) -> tuple[str, ...]:
    """The feature sets that flows must have beside those of `--features`, so that they can be scored.

    Raises:
        InputError: The folder is no whole model, or one that cannot score flows.
    """
    settings = settings_of(options)
    if settings is None:
        return ()
    from transforms.model.live import feature_set_of

    return (feature_set_of(settings.model()),)
