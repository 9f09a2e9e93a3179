"""The options of outputs on servers."""

from argparse import ArgumentParser
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from queues import server_secrets
from sinks.places import is_remote
from transforms.records import InputError


class SinkOptions(PipelineOptions):
    """What `pipelines.flows` understands about servers that are away."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--on_sink_failure",
            help="When a server takes a block no more: stop, or write it aside and continue. Default stop.",
            choices=("stop", "continue"),
            default="stop",
        )
        parser.add_argument(
            "--sink_retry_s",
            help="How long a server that is away or busy is tried before. Default 60.",
            metavar="S",
            type=float,
            default=60.0,
        )
        parser.add_argument(
            "--unsent",
            help="Folder of blocks written aside, for pipelines.resend. Default `unsent` beside the first output.",
            metavar="DIR",
        )
        parser.add_argument(
            "--secret",
            help="The secret of an environment variable, such as FLOWBEAM_ELASTICSEARCH_API_KEY, is in Google's Secret"
            " Manager, where workers read it; repeatable.",
            metavar="NAME=projects/P/secrets/S",
            action="append",
            default=[],
        )

    def check(self) -> None:
        """Refuses values that nothing further down would refuse with a line of its own.

        Raises:
            InputError: It names the option and the value.
        """
        if not 0 <= self.sink_retry_s < 1e9:
            raise InputError(f"--sink_retry_s: {self.sink_retry_s:g} s; give 0 or more")
        if self.unsent is not None and self.on_sink_failure == "stop":
            raise InputError(f"--unsent {self.unsent}: nothing is written aside without --on_sink_failure=continue")
        if self.unsent is not None and is_remote(self.unsent):
            raise InputError(f"--unsent {self.unsent}: name a folder of this machine, where pipelines.resend reads it")
        server_secrets.parsed("--secret", self.secret)

    def refer_to_secrets(self) -> None:
        """Lets sinks and queues find the secrets that are not in the environment, here and on workers."""
        server_secrets.refer(server_secrets.parsed("--secret", self.secret))

    def folder(self, beside: Path) -> Path | None:
        """Where blocks go that a server did not take; None where that ends the job.

        Args:
            beside: The folder if none is named.
        """
        if self.on_sink_failure == "stop":
            return None
        return Path(self.unsent) if self.unsent else beside
