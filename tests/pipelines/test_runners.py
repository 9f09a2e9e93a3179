"""What each runner is given, and which settings are refused before anything runs."""

import json
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from apache_beam.runners.portability.prism_runner import PrismRunner
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.utils.counters import CounterFactory

from pipelines.flink_options import FlinkOptions
from pipelines.job_servers import Flink, Portable, Prism, _PrismWarnings
from pipelines.runners import prepare
from transforms.records import InputError


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The address of something that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def flink(endpoint: str, *more: str) -> PipelineOptions:
    """Options of an endless job on Flink, completed."""
    options = PipelineOptions(["--runner=FlinkRunner", f"--job_endpoint={endpoint}", *more])
    prepare(options, endless=True)
    return options


def sent(options: PipelineOptions) -> dict[str, object]:
    """The options as they travel to the job server."""
    return dict(JobServiceHandle.encode_pipeline_options(options.get_all_options()))


@pytest.mark.parametrize("arguments", [[], ["--runner=DirectRunner"], ["--runner=direct"]])
def test_bounded_input_runs_in_this_process(arguments):
    assert type(prepare(PipelineOptions(arguments), endless=False)) is FnApiRunner


def test_bundles_in_this_process_end_at_once():
    """The thread that samples where time goes is waited for at the end of each bundle."""
    prepare(PipelineOptions([]), endless=False)
    assert StateSampler("step", CounterFactory()).sampling_period_ms <= 10


@pytest.mark.parametrize("arguments", [[], ["--runner=DirectRunner"], ["--runner=FnApiRunner"]])
def test_endless_input_names_the_runner_to_use(arguments):
    with pytest.raises(InputError, match=r"--runner=PrismRunner") as refused:
        prepare(PipelineOptions(arguments), endless=True)
    assert "\n" not in str(refused.value)


def test_flink_is_given_what_keeps_every_element(endpoint):
    """They arrive under the names that the job server knows; what is unset does not arrive."""
    options = sent(flink(endpoint))
    assert options["beam:option:checkpointing_interval:v1"] == "5000"
    assert options["beam:option:finish_bundle_before_checkpointing:v1"] is True
    assert options["beam:option:max_bundle_time_mills:v1"] == "50"
    assert options["beam:option:parallelism:v1"] == "1"
    assert options["beam:option:streaming:v1"] is True
    assert options["beam:option:environment_type:v1"] == "LOOPBACK"
    assert "beam:option:state_backend:v1" not in options


def test_what_the_user_says_stays(endpoint):
    arguments = ["--checkpointing_interval=700", "--max_bundle_time_mills=9", "--parallelism=3", "--object_reuse"]
    options = flink(endpoint, *arguments, "--externalized_checkpoints_enabled=false")
    settings = options.view_as(FlinkOptions)
    assert (settings.checkpointing_interval, settings.max_bundle_time_mills) == (700, 9)
    assert settings.object_reuse is True
    assert settings.externalized_checkpoints_enabled is False
    assert options.view_as(FlinkRunnerOptions).parallelism == 3


@pytest.mark.parametrize("installed", [True, False])
def test_pip_is_asked_nothing_where_there_is_none(endpoint, installed, tmp_path, monkeypatch):
    """Beam would say that there is no such module; setuptools, asked where pip is, would exchange distutils."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)] * installed)
    asked = flink(endpoint).view_as(DebugOptions).lookup_experiment("disable_logging_submission_environment")
    assert bool(asked) is not installed


def test_bounded_input_on_flink_is_left_as_it_is(endpoint):
    options = PipelineOptions(["--runner=FlinkRunner", f"--job_endpoint={endpoint}"])
    prepare(options, endless=False)
    assert options.view_as(FlinkOptions).checkpointing_interval is None
    assert not options.view_as(StandardOptions).streaming


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("--checkpointing_interval=-1", "without checkpoints"),
        ("--finish_bundle_before_checkpointing=false", "are lost"),
        ("--shutdown_sources_after_idle_ms=0", "no checkpoint completes"),
        ("--checkpointing_mode=AT_LEAST_ONCE", "count twice"),
        ("--fail_on_checkpointing_errors=false", "unnoticed"),
        ("--disable_metrics", "accounted for"),
        ("--parallelism=0", "give 1 or more"),
        ("--runner=PortableRunner --job_endpoint=", "needs a job server"),
        ("--job_endpoint=jobmanager", "is no HOST:PORT"),
        ("--environment_type=EXTERNAL", "name the worker pool"),
        ("--environment_type=PROCESS", "PROCESS needs"),
        ("--flink_job_server_jar=/nowhere/server.jar", "there is no such file"),
        ("--flink_master=cluster.example:8081", "--environment_type: say how Python runs"),
    ],
)
def test_what_would_lose_data_or_not_run_is_one_line(endpoint, argument, reason):
    with pytest.raises(InputError, match=reason) as refused:
        flink(endpoint, *argument.split())
    assert str(refused.value).startswith("--")
    assert "\n" not in str(refused.value)


def test_loopback_needs_the_cluster_on_this_machine(endpoint):
    with pytest.raises(InputError, match="cannot reach this one"):
        flink(endpoint, "--flink_master=http://cluster.example:8081", "--environment_type=LOOPBACK")


def test_a_worker_pool_is_reached(endpoint):
    options = flink(endpoint, "--environment_type=EXTERNAL", f"--environment_config={endpoint}")
    assert options.view_as(PortableOptions).environment_type == "EXTERNAL"


@pytest.mark.parametrize("option", ["--job_endpoint", "--environment_config"])
def test_nobody_listens(endpoint, option):
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(InputError, match=f"{option} {nobody}: cannot be reached"):
        flink(endpoint, "--environment_type=EXTERNAL", f"--environment_config={nobody}", f"{option}={nobody}")


def test_a_worker_program_is_absolute_and_there(endpoint, tmp_path):
    program = tmp_path / "worker.sh"
    arguments = ["--environment_type=PROCESS", "--environment_config=" + json.dumps({"command": str(program)})]
    with pytest.raises(InputError, match="is no program"):
        flink(endpoint, *arguments)
    program.touch(0o755)
    flink(endpoint, *arguments)


def test_a_prism_on_this_machine_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "prism"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    options = PipelineOptions(["--runner=PrismRunner"])
    assert isinstance(prepare(options, endless=True), PrismRunner)
    assert options.view_as(PrismRunnerOptions).prism_location == str(program)
    assert options.view_as(DebugOptions).lookup_experiment("prism_disable_sdf_split")  # else it loses state
    assert options.view_as(StandardOptions).streaming


def test_a_wrong_prism_says_how_to_get_one():
    with pytest.raises(InputError, match=r"--prism_location /nowhere: is no program; build it with `go install"):
        prepare(PipelineOptions(["--runner=PrismRunner", "--prism_location=/nowhere"]), endless=True)


@pytest.mark.parametrize("runner", [Prism, Flink, Portable])
def test_a_job_is_listened_to_for_as_long_as_it_runs(runner):
    """Beam itself stops after `--job_server_timeout`; the submission keeps it."""
    service = mock.MagicMock()
    service.GetStateStream.return_value = iter([mock.Mock()])
    handle = runner().create_job_service_handle(service, PipelineOptions(["--job_server_timeout=7"]))
    assert handle.timeout == 7
    handle.run("job")
    assert service.GetStateStream.call_args.kwargs["timeout"] is None
    assert service.GetMessageStream.call_args.kwargs["timeout"] is None


def test_an_unknown_runner_is_one_line():
    with pytest.raises(InputError, match="--runner Abacus: there is no such runner"):
        prepare(PipelineOptions(["--runner=Abacus"]), endless=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"level":"INFO","msg":"Serving JobManagement"}', None),
        ('{"level":"WARN","msg":"empty transform, with payload"}', None),
        ('{"level":"ERROR","msg":"log from SDK worker","sdk":{}}', None),
        ('{"level":"ERROR","msg":"Bundle Failed.","error":"pipeline canceled"}', None),
        ('{"level":"ERROR","msg":"Bundle Failed.","error":"bundle inst004 failed:Traceback"}', None),
        ('{"level":"ERROR","msg":"job failed","error":"nothing in progress"}', None),
        ("not JSON", None),
        ('{"level":"WARN","msg":"watermark stuck","time":"now","stage":3}', "Prism: watermark stuck (stage 3)"),
    ],
)
def test_prism_is_heard_when_it_warns(line, said):
    record = logging.LogRecord("PrismJobServer", logging.INFO, "", 0, line, None, None)
    assert _PrismWarnings().filter(record) is (said is not None)
    assert said is None or (record.getMessage(), record.levelno) == (said, logging.WARNING)


@pytest.mark.parametrize(
    ("runner", "line"),
    [
        (Prism, "--runner=PrismRunner: Prism cannot be fetched or started .no network.; build it with `go install "),
        (
            Flink,
            "--runner=FlinkRunner: Beam's job server cannot be fetched or started .no network.; it needs Java, and",
        ),
    ],
)
def test_a_server_that_cannot_be_started_is_one_line(runner, line, monkeypatch):
    """It names the runner, the reason, and what to do."""

    def refused(runner, options):
        raise OSError("no network\nand more")

    monkeypatch.setattr(PortableRunner, "create_job_service", refused)
    with pytest.raises(InputError, match=line):
        runner().create_job_service(PipelineOptions([]))
