"""The Flink cluster runs pipelines with Python workers of each kind, and goes on after a kill."""

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from servers.fixtures import need
from servers.flink import FlinkCluster
from servers.processes import wait_until

LIMIT_S = 120
pytestmark = pytest.mark.xdist_group("flink")


@pytest.fixture
def own(tmp_path):
    """A cluster that the test may kill."""
    need("flink", "flink-job-server", "python-worker")
    with FlinkCluster(tmp_path / "flink", slots=2) as cluster:
        yield cluster


class Append(beam.DoFn):
    """Writes a line for each element into a file of the machine."""

    def __init__(self, path):
        self.path = str(path)

    def process(self, element):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{element}\n")


def lines(path):
    return path.read_text(encoding="utf-8").split() if path.exists() else []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # how a LOOPBACK worker ends
@pytest.mark.parametrize("environment", ["LOOPBACK", "EXTERNAL", "PROCESS"])
def test_a_pipeline_runs_to_its_end(flink, tmp_path, environment):
    options = PipelineOptions(flink.pipeline_args(environment, parallelism=1, checkpoint_ms=0))
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | beam.Create(["a", "b", "c"]) | beam.ParDo(Append(tmp_path / "lines"))
    assert sorted(lines(tmp_path / "lines")) == ["a", "b", "c"]


def test_a_job_goes_on_after_its_task_manager_is_killed(own, tmp_path):
    """It is restored from its checkpoint on the task manager that takes the place."""
    options = PipelineOptions([*own.pipeline_args("PROCESS", parallelism=1), "--job_name=going-on"])
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | PeriodicImpulse(fire_interval=0.2) | beam.ParDo(Append(tmp_path / "lines"))
    result = pipeline.run()
    wait_until(lambda: lines(tmp_path / "lines"), LIMIT_S, "the job writes")
    job = own.job("going-on")
    wait_until(lambda: own.completed_checkpoints(job) > 1, LIMIT_S, "checkpoints are made")
    (worker,) = own.worker_pids()
    own.kill_task_manager()
    own.start_task_manager("task-manager-1")
    wait_until(lambda: own.jobs()[job] == "RUNNING" and own.worker_pids(), LIMIT_S, "the job runs again")
    assert worker not in own.worker_pids()
    written = len(lines(tmp_path / "lines"))
    wait_until(lambda: len(lines(tmp_path / "lines")) > written, LIMIT_S, "the job writes again")
    own.cancel(job)
    with pytest.raises(RuntimeError, match="Job was cancelled"):
        result.wait_until_finish()
    own.stop()
    assert not own.is_up()
