"""Captures in, flows with features out.

On this machine, files to Parquet:

    python -m pipelines.flows --runner=DirectRunner --input capture.pcap

Without `--input` it makes demo traffic and runs on that. `--help` lists the options; docs/ describes each field.
"""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines.first_run import compile_kernels
from pipelines.inputs import Reader, find_inputs, is_endless, is_hopeless, is_queue, octets_of
from pipelines.options import FlowOptions, parse_options
from pipelines.runners import prepare
from pipelines.stream_options import StreamOptions
from pipelines.summary import Summary
from pipelines.terminal import configure_logging, leave, mistake_in, progress, say, stoppable
from pipelines.verdicts import FlowStep, applied, schema_after, steps_of
from sinks import outputs
from sinks.outputs import SinkContext, SinkUrl
from sinks.rejects import RejectsSink
from sources.captures import ReadSettings
from sources.headers import TUNNEL_KINDS, HeaderSettings
from transforms.assemble import AssembleCaptures, AssembledFlows, AssembleFlows, ReadPackets
from transforms.features import sets
from transforms.records import MERGED_SENSORS, InputError
from transforms.rules import Rules
from transforms.sessions import AssembleSessions
from transforms.settings import FlowSettings

DEFAULT_OUTPUT = "parquet:flows"
DEMO_PACKETS = 200_000


def rules_of(options: FlowOptions) -> Rules:
    """The rules that the options ask for."""
    return Rules(
        end_rules=options.end_rules,
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


def read_settings(options: FlowOptions) -> ReadSettings:
    """How capture files are read."""
    kinds = TUNNEL_KINDS if options.decapsulate is None else options.decapsulate
    headers = HeaderSettings(
        decapsulate=() if kinds == ("none",) else kinds,
        payload_octets=options.payload_octets,
        headers_hash=options.drop_duplicates_s > 0,
    )
    return ReadSettings(headers, temp_dir=options.temp_dir, max_rejects=options.max_rejects)


def assemble(
    inputs: beam.PCollection, options: FlowOptions, settings: FlowSettings, reader: Reader, from_queue: bool
) -> AssembledFlows:
    """Wires reading and assembling, the way that `--assembler` names; several inputs are merged in shards."""
    merged = MERGED_SENSORS if options.merge_sensors else None
    if options.assembler == "captures" and (reader.alone or not merged):
        slack_s = options.max_out_of_orderness_s if from_queue else 0.0
        captures = AssembleCaptures(reader, settings, options.max_rejects, slack_s, merged)
        return inputs | "AssembleCaptures" >> captures
    packets, rejected = inputs | "ReadPackets" >> ReadPackets(reader)
    if options.assembler != "sessions":
        split = AssembleFlows(settings, options.shards, options.merge_sensors, options.max_rejects)
        assembled: AssembledFlows = packets | "AssembleFlows" >> split
    else:
        assembled = packets | "AssembleSessions" >> AssembleSessions(settings, merged)
    return assembled._replace(rejects=(rejected, assembled.rejects) | "AllRejects" >> beam.Flatten())


def build(
    inputs: beam.PCollection,
    options: FlowOptions,
    settings: FlowSettings,
    reader: Reader,
    steps: Sequence[FlowStep],
    opened: Sequence[tuple[SinkUrl, beam.PTransform]],
    rejects_folder: str,
    job: str,
    from_queue: bool,
) -> None:
    """Wires everything between the inputs and what the outputs were opened to; `run` adds the two ends."""
    flows, rejects = assemble(inputs, options, settings, reader, from_queue)
    refused = [rejects]
    flows = applied(flows, steps)
    for url, sink in opened:
        answer = flows | f"Write {url}" >> sink
        if answer is not None:
            refused.append(answer)
    together = refused[0] if len(refused) == 1 else refused | "Refused" >> beam.Flatten()
    _ = together | "WriteRejects" >> RejectsSink(rejects_folder, options.max_rejects, job)


def demo_capture(folder: str, quiet: bool) -> str:
    """A capture of demo traffic, made in `folder`."""
    from sources.generate.capture import GenerateSettings, generate

    if not quiet:
        say("no --input: this run is on generated demo traffic")
    path = os.path.join(folder, "demo.pcap")
    generate(GenerateSettings(output=path, packets=DEMO_PACKETS))
    return path


def run(arguments: Sequence[str], leftovers: ExitStack) -> None:
    """Runs the job to its end.

    Args:
        arguments: The words of the command line.
        leftovers: Gets what has to be removed in the end, however the run ends.

    Raises:
        InputError: A setting is wrong, or nothing could be read or written.
    """
    beam_options = parse_options(arguments)
    options, streams = beam_options.view_as(FlowOptions), beam_options.view_as(StreamOptions)
    endless = is_endless(options.input, bool(beam_options.view_as(StandardOptions).streaming))
    feature_sets = tuple(options.features or [sets.FLOWBEAM])
    settings = FlowSettings(rules_of(options), feature_sets, tuple(options.feature_module))
    job = secrets.token_hex(8)
    steps = steps_of(beam_options)
    schema = schema_after(settings.columns().schema, steps)
    context = SinkContext(settings.feature_sets, schema, job, endless, streams.file_max_age_s)
    opened = outputs.open_outputs(options.output or [DEFAULT_OUTPUT], context)
    targets = [url for url, _ in opened]
    rejects = Path(options.rejects) if options.rejects else outputs.rejects_folder(targets)
    if endless:
        sensors = Path(streams.sensor_events) if streams.sensor_events else outputs.sensors_folder(targets)
        from pipelines.endless import EndlessJob  # runners for it: a bounded job starts sooner without them

        summary = EndlessJob(beam_options, settings, steps, opened, rejects, sensors, job).run()
    else:
        summary = run_bounded(beam_options, settings, steps, opened, rejects, job, leftovers)
    for line in summary.damage:
        say(line)
    if options.summary:
        summary.write(options.summary)
    if not options.quiet:
        on_standard_output = any(url.on_standard_output for url in targets)
        summary.show(list(map(str, targets)), str(rejects), outputs.query(targets, context), on_standard_output)


def run_bounded(
    beam_options: PipelineOptions,
    settings: FlowSettings,
    steps: Sequence[FlowStep],
    opened: Sequence[tuple[SinkUrl, beam.PTransform]],
    rejects: Path,
    job: str,
    leftovers: ExitStack,
) -> Summary:
    """Runs the job on captures, or on queues as they are, to the end of its input.

    Raises:
        InputError: Nothing could be read or written.
    """
    options = beam_options.view_as(FlowOptions)
    leftovers.callback(outputs.remove_partial, [url for url, _ in opened], rejects, job)
    urls = options.input
    if not urls:
        folder = tempfile.TemporaryDirectory(prefix="flowbeam-demo-", dir=options.temp_dir)
        urls = [demo_capture(leftovers.enter_context(folder), options.quiet)]
    inputs = find_inputs(urls, options.sensor, options.sensor_from, options.merge_sensors)
    pipeline = beam.Pipeline(runner=prepare(beam_options, endless=False), options=beam_options)
    elements = pipeline | "Inputs" >> beam.Create(inputs, reshuffle=False)
    reader = Reader(read_settings(options), alone=len(inputs) == 1)
    build(elements, options, settings, reader, steps, opened, str(rejects), job, any(map(is_queue, urls)))
    if not is_hopeless(inputs):
        compile_kernels(options.feature_module, options.quiet)
    started = time.monotonic()
    if not options.quiet and sys.stderr.isatty():
        progress.show(octets_of(inputs))
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:
        mistake = mistake_in(error)
        if mistake is None:
            raise
        raise InputError(mistake) from error
    finally:
        progress.end()
    summary = Summary.of(result, time.monotonic() - started)
    if summary.damage and not summary.packets_read:
        raise InputError("; ".join(summary.damage))
    return summary


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    configure_logging()
    leftovers = ExitStack()
    with stoppable(leftovers.close), leftovers:
        try:
            run(sys.argv[1:] if arguments is None else arguments, leftovers)
        except InputError as error:
            say(str(error))
            return 2
    return 0


if __name__ == "__main__":
    leave(main())
