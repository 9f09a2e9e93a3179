"""Waiting for a job that may run for months, and stopping it tidily."""

import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TextIO

import grpc
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.flink_cluster import FlinkJob, find_job
from pipelines.stream_options import StreamOptions
from pipelines.summary import Summary
from pipelines.terminal import mistake_in
from sinks.command import say, signals_to
from transforms.records import InputError

STOP_WITHIN_S = 20.0
"""So long a runner may take to stop; what is not done by then is said."""
_LOOK_EVERY_S = 1.0
_BLIND_S = 45.0
"""A cluster that has not looked at its figures for so long does not see its task managers; it looks each 10 s."""

_CUT_OFF = re.compile(
    r"KeyError: '(inst)?\d+'|(grpc|_grpc|sinks\.journals\.Stopped|concurrent\.futures)\b|ValueError: Cannot invoke"
    r"|RuntimeError: Channel closed prematurely"
)
"""How the last line of a worker's traceback begins when its runner is gone."""


class _NoErrors(logging.Filter):
    """Drops what Beam logs of a failing job: it comes as an exception, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.module != "portable_runner" or record.levelno != logging.ERROR


class RunningJob:
    """A pipeline that was submitted, whatever its runner.

    Attributes:
        result: What Beam knows of it.
        flink: What its Flink cluster knows of it; None on other runners, or where the cluster cannot be found.
    """

    def __init__(self, result: Any, options: PipelineOptions, on_flink: bool) -> None:
        self.result = result
        self._on_flink = on_flink
        self._name = getattr(result, "_job_id", "").rpartition("_")[0]
        self._options = options
        self.flink: FlinkJob | None = None
        self._counters: dict[str, int] | None = None
        self._stopped = False
        self._told: set[int] = set()
        self._reason = ""
        self._look_at = 0.0
        self._seen: object = None
        self._seen_s = time.monotonic()
        self._blindness_told = False

    def wait(self, asked_to_stop: Callable[[], bool]) -> bool:
        """Waits for its end, or until it is to be stopped; whether it was stopped.

        Raises:
            InputError: The runner is gone, or Flink has given the job up.
            Exception: The job failed.
        """
        root = logging.getLogger()
        quiet = _NoErrors()
        root.addFilter(quiet)
        failure: list[BaseException] = []
        ended = threading.Event()

        def follow() -> None:
            try:
                self.result.wait_until_finish()
            except Exception as error:
                failure.append(error)
            finally:
                ended.set()

        workers = silence_workers()
        threading.Thread(target=follow, name="follow job", daemon=True).start()
        try:
            drained = False
            while not ended.wait(0.1) and not asked_to_stop() and not drained:
                drained = self._look()
            if not ended.is_set():
                line = self.stop(drained)
                ended.wait(STOP_WITHIN_S)
                if line:
                    say(line)
                return not drained
        finally:
            root.removeFilter(quiet)
        if failure and isinstance(failure[0], grpc.RpcError):
            raise InputError(self._lost_line()) from failure[0]
        if failure and self.flink is not None and "Traceback (" not in str(failure[0]):
            raise InputError(self._given_up_line(self.flink, str(failure[0]))) from failure[0]
        if failure and not self._on_flink and workers.mistake and mistake_in(failure[0]) is None:
            raise InputError(workers.mistake) from failure[0]  # Prism may tell instead what was left undone
        if failure:
            raise failure[0]
        return False

    def stop(self, drained: bool = False) -> str | None:
        """Ends the job where it runs; what it has read and not put out is read again by the next, nothing is forced.

        Args:
            drained: It has nothing left to do, and so nothing to go on with.

        Returns:
            A line that tells its user what to do next.
        """
        self._stopped = True
        if not self._on_flink:
            self.result.cancel()
            return None
        if self.flink is None:
            self.flink = find_job(self._options, self._name)
        if self.flink is None:
            self.result.cancel()
            return (
                f"Flink job {self._name}: still runs on a cluster not known here; cancel it there, give --flink_master"
            )
        with contextlib.suppress(OSError, ValueError, KeyError):  # `figures` says so
            self._counters = None if self._is_blind() else self.flink.counters()
        trouble = self._cancel(self.flink)
        checkpoint = None if drained or trouble else self._last_checkpoint(self.flink)
        self.result.cancel()
        return f"to go on where this job ended: --savepoint_path={checkpoint}" if checkpoint else trouble

    def figures(self, seconds: float) -> Summary:
        """What it did in so many seconds, as far as its runner tells."""
        if self._counters is not None:
            caveat = "counted since Flink restarted the job" if self._told else None
            return Summary.of_flink(self._counters, seconds, caveat)
        try:
            return Summary.of(self.result, seconds, whole=not (self._stopped or self._on_flink))
        except grpc.RpcError:
            return Summary.untold("the runner does not answer", seconds)

    def _cancel(self, flink: FlinkJob) -> str | None:
        """Ends the job on its cluster, which is asked again while it is too busy to answer; a line if that fails."""
        asked = False
        deadline = time.monotonic() + STOP_WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if not asked:
                    flink.cancel()
                    asked = True
                if flink.has_ended():
                    return None
            time.sleep(0.1)
        return f"Flink did not end the job within {STOP_WITHIN_S:g} s; cancel it at {flink.rest}/jobs/{flink.job}"

    def _last_checkpoint(self, flink: FlinkJob) -> str | None:
        """Where the next job can go on; None if the cluster does not tell."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            time.sleep(flink.answers_age_s())  # one more may have been complete before the job ended
            return flink.last_checkpoint()
        return None

    def _look(self) -> bool:
        """Says why Flink restarted the job; whether nothing is left to do, which Flink does not call an end."""
        if not self._on_flink or time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        try:
            if self.flink is None:
                self.flink = find_job(self._options, self._name)
            if self.flink is None:
                return False
            for at, reason in sorted(self.flink.failures().items()):
                if at not in self._told and reason != self._reason:  # it may try each second, for the same reason
                    say(f"Flink restarts the job: {reason}")
                    self._reason = reason
                self._told.add(at)
            self._tell_blindness(self.flink)
            return self.flink.is_drained()
        except (OSError, ValueError, KeyError):
            return False  # the cluster is restarting, or the job has just ended: the result tells

    def _is_blind(self) -> bool:
        """Whether what the cluster tells of steps is as old as that."""
        return time.monotonic() - self._seen_s > _BLIND_S

    def _tell_blindness(self, flink: FlinkJob) -> None:
        """Says, once, where the end cannot be noticed for a while."""
        look = flink.look()
        if look != self._seen:
            self._seen, self._seen_s, self._blindness_told = look, time.monotonic(), False
        elif self._is_blind() and not self._blindness_told and self._options.view_as(StreamOptions).stop_at_end:
            self._blindness_told = True
            say(
                "Flink waits for figures of a task manager that is lost: --stop_at_end notices the end when Flink's"
                " web.timeout is over, 10 minutes unless it is set"
            )

    def _lost_line(self) -> str:
        if self.flink is not None:
            where = f"{self.flink.rest}/jobs/{self.flink.job}"
            return f"Beam's job server no longer answers; the job may go on at {where}, cancel it there"
        return "the runner no longer answers: it was killed, or ran out of memory; start the job again"

    def _given_up_line(self, flink: FlinkJob, text: str) -> str:
        """What is to be done about a job that none of our code made fail: machines were lost, or there were none."""
        checkpoint = self._last_checkpoint(flink)
        reason = text.partition(" in state FAILED: ")[2].partition("\n")[0] or self._reason or text.partition("\n")[0]
        again = f"with --savepoint_path={checkpoint} it goes on where it was" if checkpoint else "it saved nothing yet"
        return f"Flink has given the job up: {reason.rstrip('.')}; look at its task managers, start it again: {again}"


class _OneTelling:
    """A text stream that leaves out tracebacks of what the job tells itself; Beam prints each in one piece.

    A worker that is cut off from its runner complains, bundle by bundle: the job was stopped, or says that the runner
    is gone. A mistake of the user ends the job, or is told when its files are completed. All else goes through.

    Attributes:
        mistake: The line of the last mistake of the user; None before the first.
    """

    def __init__(self, stream: TextIO) -> None:
        self.mistake: str | None = None
        self._stream = stream
        self._end_of_line_follows = False

    def write(self, text: str) -> int:
        if text == "\n" and self._end_of_line_follows:
            self._end_of_line_follows = False
            return 1
        self._end_of_line_follows = text.startswith("Traceback ") and self._is_told(text)
        return len(text) if self._end_of_line_follows else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _is_told(self, traceback: str) -> bool:
        mistake = mistake_in(RuntimeError(traceback))
        self.mistake = mistake or self.mistake
        return mistake is not None or bool(_CUT_OFF.match(traceback.rstrip().rpartition("\n")[2]))


def silence_workers() -> _OneTelling:
    """From now on, threads of workers in this process are silent about what the job tells itself."""
    if isinstance(sys.stderr, _OneTelling):
        telling = sys.stderr
        telling.mistake = None
    else:
        sys.stderr = telling = _OneTelling(sys.stderr)  # type: ignore[assignment]
    before = threading.excepthook

    def tell(what: threading.ExceptHookArgs) -> None:
        if not isinstance(what.exc_value, grpc.RpcError):
            before(what)

    threading.excepthook = tell
    return telling


@contextlib.contextmanager
def stop_signals() -> Generator[Callable[[], bool], None, None]:
    """Catches SIGINT, SIGTERM and SIGHUP; gives what tells whether one came. The second finds what was there before."""
    asked = threading.Event()

    def ask(_: int) -> None:
        asked.set()
        restore()

    with signals_to(ask) as restore:
        yield asked.is_set
