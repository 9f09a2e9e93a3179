"""The main job on captures, or on queues as they are: to the end of its input."""

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.first_run import compile_kernels, is_compiled
from pipelines.inputs import Reader, find_inputs, is_hopeless, is_queue, octets_of
from pipelines.options import FlowOptions
from pipelines.plan import Plan
from pipelines.runners import is_in_process, new_pipeline
from pipelines.summary import Summary
from pipelines.terminal import mistakes_told, progress
from sinks import outputs
from sinks.command import say
from sinks.rejects import RejectsSink
from sources import scan_ahead
from sources.captures import ReadSettings
from sources.headers import TUNNEL_KINDS, HeaderSettings
from transforms.assemble import AssembleCaptures, AssembledFlows, AssembleFlows, ReadPackets
from transforms.records import MERGED_SENSORS, InputError
from transforms.sessions import AssembleSessions

DEMO_PACKETS = 200_000


class BoundedJob:
    """One run of the main job on input that ends.

    Args:
        plan: What is to be done.
        leftovers: Gets what has to be removed in the end, however the run ends.

    Raises:
        InputError: An input does not exist, or cannot be opened.
    """

    def __init__(self, plan: Plan, leftovers: ExitStack) -> None:
        self._plan = plan
        self._options = plan.beam_options.view_as(FlowOptions)
        leftovers.callback(outputs.remove_partial, plan.urls, Path(plan.rejects), plan.job)
        urls = self._options.input
        if not urls:
            folder = tempfile.TemporaryDirectory(prefix="flowbeam-demo-", dir=self._options.temp_dir)
            urls = [demo_capture(leftovers.enter_context(folder), self._options.quiet)]
        names = (self._options.sensor, self._options.sensor_from, self._options.merge_sensors)
        self._inputs = find_inputs(urls, *names)
        self._from_queue = any(map(is_queue, urls))

    def pipeline(self) -> beam.Pipeline:
        """Everything from the inputs to the outputs, wired."""
        plan, options = self._plan, self._options
        pipeline = new_pipeline(plan.beam_options, endless=False)
        elements = pipeline | "Inputs" >> beam.Create(self._inputs, reshuffle=False)
        flows, rejects = self._assemble(elements, Reader(read_settings(options), alone=len(self._inputs) == 1))
        refused = [rejects, *plan.written(flows)]
        together = refused[0] if len(refused) == 1 else refused | "Refused" >> beam.Flatten()
        _ = together | "WriteRejects" >> RejectsSink(str(plan.rejects), options.max_rejects, plan.job)
        return pipeline

    def run(self) -> Summary:
        """Runs to the end.

        Raises:
            InputError: Nothing could be read or written.
        """
        options = self._options
        if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:  # of its own it held twice what it used, by thread and size
            pa.set_memory_pool(pa.system_memory_pool())
        pipeline = self.pipeline()
        if not is_hopeless(self._inputs):
            compile_kernels(options.feature_module, options.quiet)
        started = time.monotonic()
        if not options.quiet and sys.stderr.isatty():
            progress.show(octets_of(self._inputs))
        try:
            with mistakes_told():
                result = pipeline.run()
                result.wait_until_finish()
        finally:
            progress.end()
        summary = Summary.of(result, time.monotonic() - started)
        if summary.damage and not summary.packets_read:
            raise InputError("; ".join(summary.damage))
        return summary

    def _assemble(self, inputs: beam.PCollection, reader: Reader) -> AssembledFlows:
        """Reading and assembling, the way that `--assembler` names; several inputs are merged in shards."""
        options, settings = self._options, self._plan.settings
        merged = MERGED_SENSORS if options.merge_sensors else None
        if options.assembler == "captures" and (reader.alone or not merged):
            slack_s = options.max_out_of_orderness_s if self._from_queue else 0.0
            captures = AssembleCaptures(reader, settings, options.max_rejects, slack_s, merged)
            return inputs | "AssembleCaptures" >> captures
        packets, rejected = inputs | "ReadPackets" >> ReadPackets(reader)
        if options.assembler != "sessions":
            split = AssembleFlows(settings, options.shards, options.merge_sensors, options.max_rejects)
            assembled: AssembledFlows = packets | "AssembleFlows" >> split
        else:
            assembled = packets | "AssembleSessions" >> AssembleSessions(settings, merged)
        return assembled._replace(rejects=(rejected, assembled.rejects) | "AllRejects" >> beam.Flatten())


def look_ahead(beam_options: PipelineOptions) -> None:
    """Begins to scan the capture of a job in this process, while that is built."""
    options = beam_options.view_as(FlowOptions)
    path = options.input[0] if len(options.input or ()) == 1 else ""
    if options.only_check or options.show_steps or not os.path.isfile(path) or not is_in_process(beam_options):
        return
    if is_compiled(options.feature_module):
        scan_ahead.begin(path)


def read_settings(options: FlowOptions) -> ReadSettings:
    """How capture files are read."""
    kinds = TUNNEL_KINDS if options.decapsulate is None else tuple(options.decapsulate)
    headers = HeaderSettings(
        decapsulate=() if kinds == ("none",) else kinds,
        payload_octets=options.payload_octets,
        headers_hash=options.drop_duplicates_s > 0,
    )
    return ReadSettings(headers, temp_dir=options.temp_dir, max_rejects=options.max_rejects)


def demo_capture(folder: str, quiet: bool) -> str:
    """A capture of demo traffic, made in `folder`."""
    from sources.generate.capture import GenerateSettings, generate

    if not quiet:
        say("no --input: this run is on generated demo traffic")
    path = os.path.join(folder, "demo.pcap")
    generate(GenerateSettings(output=path, packets=DEMO_PACKETS))
    return path
