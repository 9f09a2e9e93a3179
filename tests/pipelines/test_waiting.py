"""How a job is awaited and stopped, whatever its runner: a runner and a cluster that do as they are told."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable

import grpc
import pytest
from apache_beam.metrics.execution import MetricKey, MetricResult
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.metrics.metricbase import MetricName
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import waiting
from pipelines.summary import Summary
from pipelines.waiting import RunningJob, silence_workers, stop_signals
from transforms.records import InputError


class Result:
    """A job that runs until it is cancelled, or fails."""

    def __init__(self, failure: Exception | None = None, ended: bool = False) -> None:
        self.failure = failure
        self.cancelled = threading.Event()
        self.counted: dict[str, int] = {}
        self._job_id = "flows_1234"
        if failure or ended:
            self.cancelled.set()

    def wait_until_finish(self) -> None:
        assert self.cancelled.wait(20)
        if self.failure:
            raise self.failure

    def cancel(self) -> None:
        self.cancelled.set()

    def metrics(self) -> "Result":
        return self

    def query(self, _: MetricsFilter) -> dict[str, list[MetricResult]]:
        """Counters of reading; 0 stands for one that was never committed."""
        return {
            "counters": [
                MetricResult(MetricKey("step", MetricName("read", name)), n or None, n)
                for name, n in self.counted.items()
            ],
            "string_sets": [],
        }


class OnFlink:
    """A job on a cluster, as the cluster tells it."""

    rest, job = "http://cluster:8081", "7f"

    def __init__(self, drained: bool = False, failures: dict[int, str] | None = None) -> None:
        self._drained, self._failures, self._cancelled = drained, failures or {}, False

    def failures(self) -> dict[int, str]:
        return self._failures

    def is_drained(self) -> bool:
        return self._drained

    def look(self) -> object:
        return object()

    def cancel(self) -> None:
        self._cancelled = True

    def has_ended(self) -> bool:
        return self._cancelled

    def counters(self) -> dict[str, int] | None:
        return {"read_packets_read": 5}

    def answers_age_s(self) -> float:
        return 0.0

    def last_checkpoint(self) -> str:
        return "file:/checkpoints/chk-3"


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What standard error got since the last call; it and the hook for threads are put back in the end."""
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    return lambda: capsys.readouterr().err


def waited(result: Result, asked: bool = False, flink: OnFlink | None = None) -> bool:
    running = RunningJob(result, PipelineOptions([]), flink is not None)
    running.flink = flink  # type: ignore[assignment]
    return running.wait(lambda: asked)


def test_a_job_that_ends_was_not_stopped(errors):
    assert waited(Result(ended=True)) is False
    assert errors() == ""


def test_a_job_that_fails_says_why(errors):
    with pytest.raises(RuntimeError, match="no more memory"):
        waited(Result(RuntimeError("no more memory")))


def test_a_job_that_is_to_stop_is_cancelled(errors):
    result = Result()
    assert waited(result, asked=True) is True
    assert result.cancelled.is_set()
    assert errors() == ""


def test_a_runner_that_is_gone_is_one_line(errors):
    with pytest.raises(InputError, match="the runner no longer answers") as lost:
        waited(Result(grpc.RpcError("Socket closed")))
    assert "\n" not in str(lost.value)


def test_a_job_that_outlives_its_job_server_is_named(errors, monkeypatch):
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 1e9)
    with pytest.raises(InputError, match="may go on at http://cluster:8081/jobs/7f"):
        waited(Result(grpc.RpcError("Socket closed")), flink=OnFlink())


def test_on_flink_the_cluster_cancels_and_tells_where_to_go_on(errors):
    """Beam's job server calls a job cancelled that goes on running."""
    flink = OnFlink()
    running = RunningJob(Result(), PipelineOptions([]), True)
    running.flink = flink
    assert running.wait(lambda: True) is True
    assert flink.has_ended()
    assert (running.figures(1.0).packets_read, running.figures(1.0).caveat) == (5, None)
    assert errors() == "flowbeam: to go on where this job ended: --savepoint_path=file:/checkpoints/chk-3\n"


def test_a_cluster_that_is_too_busy_is_asked_again(errors, monkeypatch):
    """What is not cancelled there goes on running, whatever the job server says."""
    flink = OnFlink()
    answers = iter([TimeoutError("timed out"), OSError("connection refused"), None])

    def cancel() -> None:
        answer = next(answers)
        if answer is not None:
            raise answer
        flink._cancelled = True

    monkeypatch.setattr(flink, "cancel", cancel)
    assert waited(Result(), asked=True, flink=flink) is True
    assert flink.has_ended()
    assert "to go on where this job ended" in errors()


def test_a_job_that_the_cluster_does_not_end_is_named(errors, monkeypatch):
    monkeypatch.setattr(waiting, "STOP_WITHIN_S", 0.2)
    flink = OnFlink()
    monkeypatch.setattr(flink, "has_ended", lambda: False)
    waited(Result(), asked=True, flink=flink)
    assert errors() == "flowbeam: Flink did not end the job within 0.2 s; cancel it at http://cluster:8081/jobs/7f\n"


def figures(result: Result, flink: OnFlink | None = None) -> Summary:
    """What is said of a job that was stopped."""
    running = RunningJob(result, PipelineOptions([]), flink is not None)
    running.flink = flink  # type: ignore[assignment]
    running.wait(lambda: True)
    return running.figures(2.0)


@pytest.mark.parametrize(
    ("counted", "told"),
    [({}, False), ({"packets_read": 0}, False), ({"packets_read": 7}, True)],
    ids=["nothing-told", "nothing-committed", "told"],
)
def test_figures_that_were_not_told_are_not_zero(errors, tmp_path, capsys, counted, told):
    """A job that was stopped before its first bundle was committed may have written flows."""
    result = Result()
    result.counted = counted
    summary = figures(result)
    summary.write(str(tmp_path / "summary.json"))
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (written["known"], written["packets_read"]) == (told, 7 if told else None)
    assert (written["flows"] is None) is not told
    summary.show(["parquet:flows"], "rejects", None)
    shown = capsys.readouterr().out
    assert ("figures  not known: the runner told none" in shown) is not told
    assert ("packets  7 read" in shown) is told


def test_a_runner_that_does_not_answer_tells_no_figures(errors, monkeypatch):
    result = Result()

    def gone() -> None:
        raise grpc.RpcError("Socket closed")

    monkeypatch.setattr(result, "metrics", gone)
    assert (figures(result).known, figures(result).caveat) == (False, "the runner does not answer")


@pytest.mark.parametrize("answer", [None, TimeoutError("timed out")], ids=["no-figures-yet", "too-busy"])
def test_figures_that_flink_does_not_tell_are_not_zero(errors, monkeypatch, answer):
    flink = OnFlink()

    def counters() -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(flink, "counters", counters)
    assert not figures(Result(), flink).known
    assert flink.has_ended()


def test_figures_of_a_job_that_ended_are_zero_where_nothing_was_counted(errors):
    running = RunningJob(Result(ended=True), PipelineOptions([]), False)
    running.wait(lambda: False)
    assert (running.figures(1.0).known, running.figures(1.0).packets_read) == (True, 0)


def test_figures_after_a_restart_say_so(errors, monkeypatch):
    """Flink counts anew then."""
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.0)
    flink = OnFlink(drained=True, failures={5: "TaskManager lost"})
    running = RunningJob(Result(), PipelineOptions([]), True)
    running.flink = flink  # type: ignore[assignment]
    running.wait(lambda: False)
    assert running.figures(1.0).caveat == "counted since Flink restarted the job"


def test_a_drained_job_on_flink_has_ended(errors):
    """Flink would let it run on for ever; there is nothing to go on with."""
    flink = OnFlink(drained=True)
    assert waited(Result(), flink=flink) is False
    assert flink.has_ended()
    assert errors() == ""


def test_flink_s_restarts_are_told_once(errors, monkeypatch):
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.0)
    looks = iter([False, False, True])
    flink = OnFlink(failures={5: "TaskManager lost"})
    monkeypatch.setattr(flink, "is_drained", lambda: next(looks))
    waited(Result(), flink=flink)
    assert errors() == "flowbeam: Flink restarts the job: TaskManager lost\n"


def test_a_reason_that_stays_is_told_once(errors, monkeypatch):
    """Without a task manager Flink tries again each second."""
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.0)
    looks = iter([False, True])
    flink = OnFlink(failures={7: "no slots", 6: "no slots", 5: "TaskManager lost"})
    monkeypatch.setattr(flink, "is_drained", lambda: next(looks))
    waited(Result(), flink=flink)
    assert errors().splitlines() == [
        "flowbeam: Flink restarts the job: TaskManager lost",
        "flowbeam: Flink restarts the job: no slots",
    ]


@pytest.mark.parametrize("arguments", [["--stop_at_end"], []], ids=["waits-for-the-end", "endless"])
def test_a_cluster_that_does_not_see_its_task_managers_is_told_once(errors, monkeypatch, arguments):
    """It may not do so for minutes: then nobody can tell the end, and figures are of before."""
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(waiting, "_BLIND_S", 0.0)
    drained = iter([False, False, False, True])
    flink = OnFlink()
    monkeypatch.setattr(flink, "is_drained", lambda: next(drained))
    monkeypatch.setattr(flink, "look", lambda: "the same")
    running = RunningJob(Result(), PipelineOptions(arguments), True)
    running.flink = flink  # type: ignore[assignment]
    assert running.wait(lambda: False) is False
    assert errors().count("Flink waits for figures of a task manager that is lost") == len(arguments)
    assert not running.figures(1.0).known


def test_a_job_that_flink_gives_up_is_one_line(errors, monkeypatch):
    """It says how to go on; a failure in our code is shown whole instead."""
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 1e9)
    failed = "Pipeline flows_12 failed in state FAILED: a.b.NoResourceException: Could not acquire resources."
    with pytest.raises(InputError) as line:
        waited(Result(RuntimeError(failed)), flink=OnFlink())
    assert str(line.value) == (
        "Flink has given the job up: a.b.NoResourceException: Could not acquire resources; look at its task"
        " managers, start it again: with --savepoint_path=file:/checkpoints/chk-3 it goes on where it was"
    )
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        waited(Result(RuntimeError(f"{failed}\n{traceback_of('ZeroDivisionError')}")), flink=OnFlink())


def test_a_cluster_that_nobody_named_is_told(errors, monkeypatch):
    monkeypatch.setattr(waiting, "find_job", lambda *_: None)
    running = RunningJob(Result(), PipelineOptions([]), True)
    assert running.wait(lambda: True) is True
    assert "flows: still runs on a cluster not known here" in errors()


def traceback_of(last: str) -> str:
    """As a worker prints it."""
    return f'Traceback (most recent call last):\n  File "sdk_worker.py", line 310, in _execute\n{last}\n'


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        ("KeyError: 'inst005'", False),
        ("KeyError: '17'", False),
        ("RuntimeError: Channel closed prematurely.", False),
        ("grpc._channel._MultiThreadedRendezvous: <…>", False),
        ("sinks.journals.Stopped: flows: the job is ending", False),
        ("transforms.records.InputError: flows: disk full [while running 'Write']", False),
        ("KeyError: 'sensor'", True),
        ("ZeroDivisionError: division by zero", True),
    ],
)
def test_workers_do_not_tell_what_the_job_tells(errors, last, shown):
    """What is neither a sign of the end nor a mistake of the user is a bug: it is shown whole."""
    silence_workers()
    silence_workers()
    print(traceback_of(last), file=sys.stderr)
    print("a line of ours", file=sys.stderr)
    assert errors() == (traceback_of(last) + "\n" if shown else "") + "a line of ours\n"


def test_a_mistake_that_a_worker_told_is_why_the_job_failed(errors):
    """Prism may call it failed for what was left undone. Another job of the process fails for reasons of its own."""
    stuck = RuntimeError("Pipeline job-001 failed in state FAILED: nothing in progress")

    class Failing(Result):
        def wait_until_finish(self) -> None:
            print(
                traceback_of("transforms.records.InputError: flows: disk full [while running 'Write']"), file=sys.stderr
            )
            super().wait_until_finish()

    with pytest.raises(InputError, match=r"^flows: disk full$"):
        waited(Failing(stuck))
    with pytest.raises(RuntimeError, match="nothing in progress"):
        waited(Result(stuck))
    assert errors() == ""


def test_threads_that_lose_their_runner_are_silent(errors, monkeypatch):
    told: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: told.append(what.exc_value))
    silence_workers()
    bug = ValueError("a bug")
    for error in (grpc.RpcError("Socket closed"), bug):
        thread = threading.Thread(target=_raise, args=(error,))
        thread.start()
        thread.join()
    assert told == [bug]


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_is_as_before(number):
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        with stop_signals() as asked:
            assert not asked()
            os.kill(os.getpid(), number)
            assert asked()
            assert came == []
            os.kill(os.getpid(), number)
            assert came == [number]
    finally:
        signal.signal(number, before)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)
