"""Options that Beam's Flink job server understands and Beam's Python does not know; their values for endless input."""

from argparse import ArgumentParser, ArgumentTypeError

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from transforms.records import InputError

_NUMBERS = (
    "auto_watermark_interval",
    "checkpoint_timeout_millis",
    "checkpointing_interval",
    "execution_retry_delay",
    "latency_tracking_interval",
    "max_bundle_size",
    "max_bundle_time_mills",
    "min_pause_between_checkpoints",
    "num_concurrent_checkpoints",
    "number_of_execution_retries",
    "shutdown_sources_after_idle_ms",
)
_SWITCHES = (
    "allow_non_restored_state",
    "disable_metrics",
    "externalized_checkpoints_enabled",
    "fail_on_checkpointing_errors",
    "faster_copy",
    "finish_bundle_before_checkpointing",
    "force_unaligned_checkpoint_enabled",
    "object_reuse",
    "operator_chaining",
    "retain_externalized_checkpoints_on_cancellation",
    "unaligned_checkpoint_enabled",
)
_TEXTS = (
    "checkpointing_mode",
    "flink_conf_dir",
    "report_checkpoint_duration",
    "savepoint_path",
    "state_backend",
    "state_backend_storage_path",
)

ENDLESS: dict[str, int | bool] = {
    "checkpointing_interval": 5000,
    "externalized_checkpoints_enabled": True,
    "finish_bundle_before_checkpointing": True,
    "max_bundle_time_mills": 50,
    "retain_externalized_checkpoints_on_cancellation": True,
}
"""What an endless job is given unless its user says otherwise."""


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ArgumentTypeError(f"{text}; give true or false")
    return text.lower() == "true"


class FlinkOptions(PipelineOptions):
    """They travel to the job server by their names; one that is None does not."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        for name in _NUMBERS:
            parser.add_argument(f"--{name}", type=int)
        for name in _SWITCHES:
            parser.add_argument(f"--{name}", type=_yes_or_no, nargs="?", const=True)
        for name in _TEXTS:
            parser.add_argument(f"--{name}")


def complete(options: PipelineOptions) -> None:
    """Sets what an endless job needs, and refuses what would lose its data.

    Raises:
        InputError: It names the option and says why.
    """
    flink = options.view_as(FlinkOptions)
    for name, value in ENDLESS.items():
        if getattr(flink, name) is None:
            setattr(flink, name, value)
    if flink.checkpointing_interval <= 0:
        raise InputError(
            f"--checkpointing_interval {flink.checkpointing_interval}: without checkpoints a failure loses every open"
            " flow; give milliseconds, such as 5000"
        )
    if not flink.finish_bundle_before_checkpointing:
        raise InputError(
            "--finish_bundle_before_checkpointing=false: elements of a bundle that is open at a checkpoint are lost;"
            " leave it out"
        )
    if flink.shutdown_sources_after_idle_ms is not None and flink.shutdown_sources_after_idle_ms >= 0:
        raise InputError(
            f"--shutdown_sources_after_idle_ms {flink.shutdown_sources_after_idle_ms}: no checkpoint completes once a"
            " source has shut down; leave it out, and use --stop_at_end or cancel the job"
        )
    if (flink.checkpointing_mode or "EXACTLY_ONCE").upper() != "EXACTLY_ONCE":
        raise InputError(
            f"--checkpointing_mode {flink.checkpointing_mode}: packets would count twice after a failure; leave it out"
        )
    if flink.fail_on_checkpointing_errors is False:
        raise InputError(
            "--fail_on_checkpointing_errors=false: a job that can save nothing would go on unnoticed; leave it out"
        )
    if flink.disable_metrics:
        raise InputError("--disable_metrics: packets could not be accounted for; leave it out")
    runner = options.view_as(FlinkRunnerOptions)
    if runner.parallelism == -1:
        runner.parallelism = 1
    elif runner.parallelism < 1:
        raise InputError(f"--parallelism {runner.parallelism}: give 1 or more")
