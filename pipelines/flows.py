"""Captures in, flows with features out.

On this machine, files to Parquet:

    python -m pipelines.flows --runner=DirectRunner --input capture.pcap

Without `--input` it makes demo traffic and runs on that. `--help` lists the options; docs/ describes each field.
"""

import secrets
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines import drift_options
from pipelines.bounded import BoundedJob, look_ahead
from pipelines.drift_options import DriftOptions
from pipelines.inputs import is_endless
from pipelines.options import FlowOptions, parse_options
from pipelines.plan import Plan, graph_of
from pipelines.score_options import ScoreOptions, feature_sets_for
from pipelines.sink_options import SinkOptions
from pipelines.stream_options import StreamOptions
from pipelines.terminal import configure_logging, leave, stoppable
from pipelines.verdicts import schema_after, steps_of
from sinks import outputs, sensors, unsent
from sinks.command import say, status_of
from sinks.outputs import SinkContext
from transforms.features import sets
from transforms.records import InputError
from transforms.rules import Rules
from transforms.settings import FlowSettings

if TYPE_CHECKING:
    from pipelines.drift import WatchModel

DEFAULT_OUTPUT = "parquet:flows"


def rules_of(options: FlowOptions) -> Rules:
    """The rules that the options ask for."""
    return Rules(
        end_rules=tuple(options.end_rules),
        idle_timeout_s=options.idle_timeout_s,
        active_timeout_s=options.active_timeout_s,
        tcp_linger_s=options.tcp_linger_s,
        activity_timeout_s=options.activity_timeout_s,
        interim_interval_s=options.interim_interval_s,
        icmp_key=options.icmp_key,
        ignore_vni=options.ignore_vni,
        drop_duplicates_s=options.drop_duplicates_s,
        max_open_flows=options.max_open_flows,
        community_id_seed=options.community_id_seed,
    )


def plan_of(beam_options: PipelineOptions) -> Plan:
    """What the options ask for, checked; the outputs are open.

    Raises:
        InputError: A setting is wrong, or an output cannot be used.
    """
    options, streams = beam_options.view_as(FlowOptions), beam_options.view_as(StreamOptions)
    servers = beam_options.view_as(SinkOptions)
    servers.refer_to_secrets()
    endless = is_endless(options.input, bool(beam_options.view_as(StandardOptions).streaming))
    chosen = tuple(dict.fromkeys(options.features or [sets.FLOWBEAM]))
    scored = feature_sets_for(beam_options.view_as(ScoreOptions))
    settings = FlowSettings(rules_of(options), tuple(dict.fromkeys(chosen + scored)), tuple(options.feature_module))
    steps = steps_of(beam_options)
    schema = schema_after(settings.columns().schema, steps)
    texts = options.output or [DEFAULT_OUTPUT]
    urls = list(map(outputs.parse_url, texts))
    context = SinkContext(
        chosen,
        schema,
        secrets.token_hex(8),
        endless,
        streams.file_max_age_s,
        servers.sink_retry_s,
        servers.folder(outputs.folder_beside(urls, "unsent")),
        options.only_check or options.show_steps,
    )
    opened = outputs.open_outputs(texts, context)
    rejects = options.rejects or outputs.folder_beside(urls, "rejects")
    sensor_events = streams.sensor_events or outputs.folder_beside(urls, "sensors")
    servers_of_events = outputs.open_events(urls, context, sensors.NAME, sensors.SensorFiles.schema) if endless else []
    plan = Plan(beam_options, settings, steps, context, opened, rejects, sensor_events, servers_of_events)
    return plan._replace(watch=watch_of(plan))


def watch_of(plan: Plan) -> "WatchModel | None":
    """What tells whether the model that scores still fits; None without one.

    Raises:
        InputError: The model has nothing to compare with, or labels are not there.
    """
    model = plan.beam_options.view_as(ScoreOptions).model
    settings = drift_options.settings_of(plan.beam_options.view_as(DriftOptions))
    if model is None or settings is None:
        return None
    from pipelines.drift import WatchModel
    from sinks import drift
    from transforms.drift import rows

    streams = plan.beam_options.view_as(StreamOptions)
    folder = settings.folder or outputs.folder_beside(plan.urls, "drift")
    follow = plan.endless and not streams.stop_at_end
    servers = outputs.open_events(plan.urls, plan.context, drift.NAME, rows.SCHEMA)
    return WatchModel(model, settings, folder, plan.job, plan.endless, follow, streams.file_max_age_s, servers)


def run(arguments: Sequence[str], leftovers: ExitStack) -> None:
    """Runs the job to its end.

    Args:
        arguments: The words of the command line.
        leftovers: Gets what has to be removed in the end, however the run ends.

    Raises:
        InputError: A setting is wrong, or nothing could be read or written.
    """
    beam_options = parse_options(arguments)
    options = beam_options.view_as(FlowOptions)
    look_ahead(beam_options)
    plan = plan_of(beam_options)
    if plan.endless:
        from pipelines.endless import EndlessJob  # runners for it: a bounded job starts sooner without them

        job: EndlessJob | BoundedJob = EndlessJob(plan)
    else:
        job = BoundedJob(plan, leftovers)
    if options.only_check or options.show_steps:
        pipeline = job.pipeline()
        print("\n".join(graph_of(pipeline) if options.show_steps else plan.described()))
        return
    summary = job.run()
    if summary is None:
        return
    for line in summary.damage:
        say(line)
    if options.summary:
        summary.write(options.summary)
    if not options.quiet:
        on_standard_output = any(url.on_standard_output for url in plan.urls)
        query = outputs.query(plan.urls, plan.context)
        summary.show(list(map(str, plan.urls)), str(plan.rejects), query, on_standard_output)
    waiting = 0 if plan.context.unsent is None else unsent.records_of(plan.context.unsent, plan.job)
    if waiting:
        folder = plan.context.unsent
        raise InputError(
            f"{waiting:,} records that a server did not take are in {folder}: python -m pipelines.resend {folder}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    configure_logging()
    leftovers = ExitStack()

    def work() -> None:
        with stoppable(leftovers.close), leftovers:
            run(sys.argv[1:] if arguments is None else arguments, leftovers)

    return status_of(work)


if __name__ == "__main__":
    leave(main())
