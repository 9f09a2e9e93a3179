"""What is asked of a Flink cluster, and what is made of its answers: a server in this process plays the cluster."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.flink_cluster import FlinkJob, find_job

_END_OF_TIME = (1 << 63) - 1


class Cluster:
    """Answers by path, with what `answers` has for it; notes what else was asked.

    Attributes:
        answers: By path, its query included, under /jobs.
        requests: Method and path of each request.
        rest: The server's address.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[tuple[str, str]] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = unquote(self.path).removeprefix("/jobs")
                cluster.requests.append((self.command, path))
                known = path in cluster.answers
                self.send_response(200 if known else 404)
                self.end_headers()
                if known:
                    self.wfile.write(json.dumps(cluster.answers[path]).encode())

            do_PATCH = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.rest = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def watermarks(self, **steps: list[int]) -> None:
        """The job has these steps, whose subtasks have come so far."""
        vertices = [{"id": name, "name": name, "parallelism": 2} for name in steps]
        source = {"id": "impulse", "name": "Source: Impulse", "parallelism": 2}
        self.answers["/7f"] = {"state": "RUNNING", "vertices": [source, *vertices]}
        for name, reached in steps.items():
            metrics = {f"{i}.step.currentOutputWatermark": value for i, value in enumerate(reached)}
            path = f"/7f/vertices/{name}/metrics"
            self.answers[path] = [{"id": metric} for metric in [*metrics, "0.numRecordsIn"]]
            named = [{"id": metric, "value": str(value)} for metric, value in metrics.items()]
            self.answers[f"{path}?get={','.join(metrics)}"] = named


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster that knows nothing yet."""
    made = Cluster()
    yield made
    made.close()


@pytest.fixture
def job(cluster: Cluster) -> FlinkJob:
    """Its job 7f."""
    return FlinkJob(cluster.rest, "7f")


@pytest.mark.parametrize("state", ["FINISHED", "CANCELED", "FAILED"])
def test_a_job_has_ended_for_good(cluster, job, state):
    cluster.answers["/7f"] = {"state": state}
    assert (job.state(), job.has_ended()) == (state, True)


@pytest.mark.parametrize("state", ["CREATED", "RUNNING", "RESTARTING", "FAILING", "CANCELLING"])
def test_a_job_has_not_ended_yet(cluster, job, state):
    cluster.answers["/7f"] = {"state": state}
    assert not job.has_ended()


@pytest.mark.parametrize(
    ("steps", "drained"),
    [
        ({"a": [_END_OF_TIME, _END_OF_TIME], "b": [_END_OF_TIME, _END_OF_TIME]}, True),
        ({"a": [_END_OF_TIME, _END_OF_TIME], "b": [_END_OF_TIME, 5]}, False),
        ({"a": [_END_OF_TIME, _END_OF_TIME], "b": [_END_OF_TIME]}, False),
        ({}, False),
    ],
    ids=["all-steps", "one-subtask-behind", "one-not-heard-of", "no-steps-yet"],
)
def test_a_job_is_drained_when_every_step_is_at_the_end_of_time(cluster, job, steps, drained):
    """The source of Beam's impulse has no watermark, and is not asked for one."""
    cluster.watermarks(**steps)
    assert job.is_drained() is drained


def test_a_job_that_does_not_run_is_not_drained(cluster, job):
    """What was known of its steps is of before."""
    cluster.watermarks(a=[_END_OF_TIME, _END_OF_TIME])
    cluster.answers["/7f"]["state"] = "RESTARTING"
    assert job.is_drained() is False


def test_failures_are_their_innermost_cause(cluster, job):
    trace = (
        "java.lang.Exception: outer\n\tat A.b\nCaused by: RuntimeError: middle\nCaused by: OSError: disk full\n\tat C"
    )
    entries = [{"timestamp": 17, "stacktrace": trace}, {"timestamp": 18, "stacktrace": "TaskManager lost\n\tat D"}]
    cluster.answers["/7f/exceptions?maxExceptions=20"] = {"exceptionHistory": {"entries": entries}}
    assert job.failures() == {17: "OSError: disk full", 18: "TaskManager lost"}


def test_counters_are_added_up_over_steps(cluster, job):
    """Beam's counters carry the step's name before a brace; Flink's own do not."""
    cluster.answers["/7f"] = {"vertices": [{"id": "a"}, {"id": "b"}]}
    for step, n in (("a", 3), ("b", 4)):
        path = f"/7f/vertices/{step}/subtasks/metrics"
        beam = "[2]{AssembleFlows__Write}.assemble_blocks_taken"
        cluster.answers[path] = [{"id": beam}, {"id": "numRecordsIn"}]
        cluster.answers[f"{path}?get={beam}&agg=sum"] = [{"id": beam, "sum": float(n)}]
    assert job.counters() == {"assemble_blocks_taken": 7}


def test_counters_are_none_while_a_step_has_no_figures(cluster, job):
    """After a restart the cluster may know nothing of steps for a while; that is not 0."""
    cluster.answers["/7f"] = {"vertices": [{"id": "a"}, {"id": "b"}]}
    for step, figures in (("a", ["numRecordsIn"]), ("b", [])):
        cluster.answers[f"/7f/vertices/{step}/subtasks/metrics"] = [{"id": name} for name in figures]
    assert job.counters() is None


def test_counters_with_long_names_are_asked_for_in_pieces(cluster, job):
    """Flink answers 404 to a request of more than 4,096 characters; names hold those of all steps of a stage."""
    names = [f"[2]{{{'Read' * 300}}}.assemble_{number}" for number in range(5)]
    path = "/7f/vertices/a/subtasks/metrics"
    cluster.answers["/7f"] = {"vertices": [{"id": "a"}]}
    cluster.answers[path] = [{"id": name} for name in [*names, "[2]{Read}.ref_metric_bytes"]]
    for piece in (names[:2], names[2:4], names[4:]):
        cluster.answers[f"{path}?get={','.join(piece)}&agg=sum"] = [{"id": name, "sum": 1.0} for name in piece]
    assert job.counters() == {f"assemble_{number}": 1 for number in range(5)}


@pytest.mark.parametrize(
    ("latest", "path"),
    [
        ({}, None),
        ({"completed": None, "savepoint": None}, None),
        ({"completed": {"latest_ack_timestamp": 5, "external_path": "file:/chk-5"}}, "file:/chk-5"),
        (
            {
                "completed": {"latest_ack_timestamp": 5, "external_path": "file:/chk-5"},
                "savepoint": {"latest_ack_timestamp": 9, "external_path": "file:/sp"},
            },
            "file:/sp",
        ),
    ],
    ids=["none-ever", "none-now", "a-checkpoint", "a-newer-savepoint"],
)
def test_the_newest_checkpoint_is_the_one_to_start_from(cluster, job, latest, path):
    cluster.answers["/7f/checkpoints"] = {"latest": latest}
    assert job.last_checkpoint() == path


def test_a_job_is_cancelled_through_the_cluster(cluster, job):
    cluster.answers["/7f?mode=cancel"] = None
    job.cancel()
    assert cluster.requests == [("PATCH", "/7f?mode=cancel")]


def test_the_newest_job_of_the_name_that_lives_is_ours(cluster):
    jobs = [("1a", "flows", "RUNNING", 10), ("2b", "flows", "RUNNING", 30), ("3c", "flows", "FAILED", 40)]
    jobs += [("4d", "others", "RUNNING", 50)]
    keys = ("jid", "name", "state", "start-time")
    cluster.answers["/overview"] = {"jobs": [dict(zip(keys, one, strict=True)) for one in jobs]}
    options = PipelineOptions([f"--flink_master={cluster.rest}"])
    found = find_job(options, "flows")
    assert found is not None
    assert (found.rest, found.job) == (cluster.rest, "2b")
    assert find_job(options, "nobody's") is None
    without_scheme = PipelineOptions([f"--flink_master={cluster.rest.removeprefix('http://')}"])
    assert find_job(without_scheme, "others") is not None


@pytest.mark.parametrize("arguments", [[], ["--job_endpoint=embed"], ["--flink_master=127.0.0.1:9"]])
def test_a_cluster_that_is_nowhere_has_no_job(arguments):
    assert find_job(PipelineOptions(arguments), "flows") is None
