"""The job servers that Beam starts beside a job: tied to its life, out of reach of its terminal, and quiet.

Beam would leave one behind when the job is killed, and Ctrl-C would end it before the job has ended in order.
"""

import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from os import getpid
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.job_server import JobServer, StopOnExitJobServer
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from apache_beam.runners.portability.prism_runner import PrismJobServer, PrismRunner
from apache_beam.version import __version__ as beam_version

from pipelines import companion
from transforms.records import InputError

_TOLD_ELSEWHERE = (
    "log from SDK",
    "empty transform",
    "state request after bundle inactive",  # a worker at work when we cancelled
    "Prism received bundle error",  # the job tells why it failed, in these four
    "stage.Execute aborting",
    "Bundle Failed.",
    "job failed",
)
"""How messages of Prism begin that say nothing new to a person."""

BUILD_PRISM = f"build it with `go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam_version}`"


class _Handle(JobServiceHandle):
    """Beam's, which listens to a running job for `--job_server_timeout`, 300 s, and then calls it failed; not this."""

    def run(self, preparation_id: str) -> Any:
        """Starts the job, and listens for as long as it runs."""
        self.timeout = None
        return super().run(preparation_id)


class Portable(PortableRunner):
    """Beam's, for a job server that runs already."""

    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> JobServiceHandle:
        """One that listens for as long as the job runs."""
        return _Handle(job_service, options)


class _Started(Portable):
    """Beam's, for a job server that is started for the job; a start that fails is one line."""

    server: str
    remedy: str

    def create_job_service(self, options: PipelineOptions) -> JobServiceHandle:
        """Beam's.

        Raises:
            InputError: The server cannot be started.
        """
        try:
            with _own_interrupts():
                return super().create_job_service(options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = f"cannot be fetched or started ({_first_line(error)})"
            raise InputError(f"--runner={type(self).__name__}Runner: {self.server} {reason}; {self.remedy}") from error


class Prism(_Started, PrismRunner):
    """Beam's own streaming runner."""

    server = "Prism"
    remedy = f"{BUILD_PRISM} and name it with --prism_location"

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        """One for all pipelines of this process."""
        return PrismRunner.shared_handle.acquire(lambda: StopOnExitJobServer(_PrismServer(options)))


class Flink(_Started, FlinkRunner):
    """A cluster, by way of Beam's job server."""

    server = "Beam's job server"
    remedy = "it needs Java, and --flink_job_server_jar names one on this machine"

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        """Beam's, as a companion where it is a process of this machine."""
        flink = options.view_as(FlinkRunnerOptions)
        if flink.flink_submit_uber_jar and flink.flink_master not in MAGIC_HOST_NAMES:
            return super().default_job_server(options)
        flink.flink_master = self.add_http_scheme(flink.flink_master)
        return StopOnExitJobServer(_FlinkServer(options))


class _PrismServer(PrismJobServer):
    def subprocess_cmd_and_endpoint(self) -> tuple[list[str], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        return _as_companion(command), endpoint


class _FlinkServer(FlinkJarJobServer):
    def subprocess_cmd_and_endpoint(self) -> tuple[list[str], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        return _as_companion(command), endpoint


class _PrismWarnings(logging.Filter):
    """Keeps what Prism warns of, as one line; drops its notes, and what the job or its workers tell themselves."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = json.loads(record.getMessage())
            level, message = str(said.pop("level")), str(said.pop("msg"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        if not level.startswith(("WARN", "ERROR")) or message.startswith(_TOLD_ELSEWHERE):
            return False
        if said.get("error") == "pipeline canceled":
            return False
        details = ", ".join(f"{key} {value}" for key, value in said.items() if key not in ("time", "source"))
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = f"Prism: {message}" + (f" ({details})" if details else ""), None
        return True


def say_only_prism_warnings() -> None:
    """What Prism says at its levels `warn` and `error`, as lines of ours."""
    logger = logging.getLogger(_PrismServer.__name__)
    if not any(isinstance(one, _PrismWarnings) for one in logger.filters):
        logger.addFilter(_PrismWarnings())


def _as_companion(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", companion.__file__, str(getpid()), *command]


@contextlib.contextmanager
def _own_interrupts() -> Generator[None, None, None]:
    """Beam makes SIGINT stop the server first; it is the job that has to be stopped first, and we do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
