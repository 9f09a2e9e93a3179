"""Which runner a job gets, with what each needs to run it rightly."""

import json
import os
import shutil
import socket
from importlib.machinery import PathFinder
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
)
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.runners.worker.statesampler import StateSampler

from pipelines import flink_options
from pipelines.job_servers import BUILD_PRISM, Flink, Portable, Prism, say_only_prism_warnings
from transforms.records import InputError

_IN_PROCESS = {"", "direct", "bundlebaseddirect", "fnapi", "switchingdirect"}
_SAMPLED_MS = 10
_ON_THIS_MACHINE = ("localhost", "127.0.0.1", "::1", "")


def new_pipeline(options: PipelineOptions, endless: bool) -> beam.Pipeline:
    """An empty pipeline on the runner that the options name; see `prepare`.

    Raises:
        InputError: As there; or the runner says what the options lack.
    """
    runner = prepare(options, endless)
    try:
        return beam.Pipeline(runner=runner, options=options)
    except ValueError as error:
        lines = [line.rstrip(". ") for line in str(error).splitlines() if line.strip()]
        name = options.view_as(StandardOptions).runner
        raise InputError(f"--runner={name}: {'; '.join(lines[1:] or lines)}") from error


def prepare(options: PipelineOptions, endless: bool) -> PipelineRunner:
    """The runner that the options name; completes the options with what it needs.

    DirectRunner is Beam's in-process runner for bounded input: `DirectRunner` itself would first try to fetch another.

    Args:
        options: Beam's own, of which unset ones are set.
        endless: Some input has no end.

    Raises:
        InputError: There is no such runner, it cannot run such a job, or an option would lose data.
    """
    standard = options.view_as(StandardOptions)
    name = standard.runner or ""
    kind = _kind(options)
    if PathFinder.find_spec("pip") is None:  # uv's environments have none; Beam asks it what to tell workers
        options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    if endless:
        if kind in _IN_PROCESS:
            raise InputError(
                f"--runner={name or 'DirectRunner'}: cannot run an endless input; use --runner=PrismRunner on this"
                " machine, or --runner=FlinkRunner on a cluster"
            )
        standard.streaming = True
    if is_in_process(options):
        return _in_process()
    if kind == "prism":
        return _prism(options)
    if kind in ("flink", "portable"):
        return _portable(options, kind, endless)
    try:
        return create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"--runner {name}: there is no such runner here; DirectRunner is this machine") from error


def is_in_process(options: PipelineOptions) -> bool:
    """Whether `prepare` gives the runner that works in this process."""
    return _kind(options) in ("", "direct")


def _kind(options: PipelineOptions) -> str:
    name = options.view_as(StandardOptions).runner or ""
    return name.rpartition(".")[2].lower().removesuffix("runner")


def _in_process() -> PipelineRunner:
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    # Each bundle ends when the thread that samples where time goes wakes next: every 0.2 s, which no option changes.
    StateSampler.__init__.__defaults__ = (_SAMPLED_MS,)
    return FnApiRunner()


def _prism(options: PipelineOptions) -> PipelineRunner:
    # Prism 2.77 frees the keys of the rest of a bundle that it splits while the first half still runs: two bundles of
    # one key work at a time, and state is lost.
    options.view_as(DebugOptions).add_experiment("prism_disable_sdf_split")
    prism = options.view_as(PrismRunnerOptions)
    location = prism.prism_location
    if location is None:
        prism.prism_location = _installed_prism()
    elif "://" not in location and not os.access(location, os.X_OK):
        raise InputError(
            f"--prism_location {location}: is no program; {BUILD_PRISM}, or leave it out and Beam fetches it"
        )
    if prism.prism_log_level == "info":
        prism.prism_log_level = "warn"
    if prism.prism_log_level in ("warn", "error"):
        say_only_prism_warnings()
    return Prism()


def _installed_prism() -> str | None:
    """A Prism of Beam's version on this machine; None if Beam has to fetch it."""
    found = shutil.which("prism")
    if found:
        return found
    servers = Path(os.environ.get("FLOWBEAM_SERVERS") or "~/.cache/flowbeam/servers").expanduser()
    built = [path for path in sorted(servers.glob("prism*/prism")) if os.access(path, os.X_OK)]
    return str(built[-1]) if built else None


def _portable(options: PipelineOptions, kind: str, endless: bool) -> PipelineRunner:
    portable = options.view_as(PortableOptions)
    endpoint = portable.job_endpoint
    if kind == "portable" and not endpoint:
        raise InputError("--runner=PortableRunner: needs a job server; name it: --job_endpoint=localhost:8099")
    if endpoint and endpoint != "embed":
        _check_reachable("--job_endpoint", endpoint, "start the job server, or name the right one")
    jar = options.view_as(FlinkRunnerOptions).flink_job_server_jar
    if jar and "://" not in jar and not os.path.isfile(jar):
        raise InputError(f"--flink_job_server_jar {jar}: there is no such file; leave it out and Beam fetches it")
    if endless:
        flink_options.complete(options)
    _check_environment(portable, _is_local(options))
    return Portable() if kind == "portable" else Flink()


def _is_local(options: PipelineOptions) -> bool:
    """Whether the cluster is on this machine, as far as the options tell."""
    master = options.view_as(FlinkRunnerOptions).flink_master
    endpoint = options.view_as(PortableOptions).job_endpoint
    if master in ("[auto]", "[local]", "[collection]"):
        return not endpoint or endpoint == "embed" or _host_of(endpoint) in _ON_THIS_MACHINE
    return _host_of(master) in _ON_THIS_MACHINE


def _check_environment(portable: PortableOptions, local: bool) -> None:
    """Chooses where Python runs, and checks that it can.

    Raises:
        InputError: The workers cannot be reached.
    """
    kind, setting = portable.environment_type, portable.environment_config
    if portable.environment_options:
        return  # the newer form, of which Beam checks what there is to check
    if not kind:
        if not local:
            raise InputError(
                "--environment_type: say how Python runs on the cluster: EXTERNAL (a worker pool beside each task"
                " manager), PROCESS (a program there) or DOCKER; docs/flink.md has the commands"
            )
        portable.environment_type = kind = "LOOPBACK"
    if kind == "LOOPBACK" and not local:
        raise InputError(
            "--environment_type=LOOPBACK: a cluster on other machines cannot reach this one; use EXTERNAL or PROCESS"
        )
    if kind == "EXTERNAL":
        if not setting:
            raise InputError("--environment_config: name the worker pool for EXTERNAL, such as localhost:50000")
        if local and not setting.startswith("{"):
            _check_reachable(
                "--environment_config",
                setting,
                "start it: python -m apache_beam.runners.worker.worker_pool_main --service_port=50000",
            )
    if kind == "PROCESS":
        try:
            program = json.loads(setting or "")["command"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                """--environment_config: PROCESS needs '{"command": "/path/of/worker.sh"}'; docs/flink.md has one"""
            ) from error
        if not os.path.isabs(program) or (local and not os.access(program, os.X_OK)):
            raise InputError(f"--environment_config: {program} is no program; give its absolute path")


def _host_of(address: str) -> str:
    return address.rpartition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")


def _check_reachable(option: str, address: str, remedy: str) -> None:
    host, port = _host_of(address), address.rpartition(":")[2]
    if not host or not port.isdigit():
        raise InputError(f"{option} {address}: is no HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(f"{option} {address}: cannot be reached ({error.strerror or error}); {remedy}") from error
