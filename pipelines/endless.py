"""The main job on endless input: queues in, flows out as they end, until every stream has ended or it is stopped."""

import time

import apache_beam as beam
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions, StandardOptions

from pipelines.first_run import compile_kernels
from pipelines.options import FlowOptions
from pipelines.plan import Plan
from pipelines.runners import new_pipeline
from pipelines.stream_options import StreamOptions
from pipelines.summary import Summary
from pipelines.terminal import mistakes_told
from pipelines.waiting import RunningJob, stop_signals
from sinks import outputs
from sinks.command import say
from sinks.rejects import RejectsSink
from sinks.sensors import WriteSensorEvents
from sources import streaming
from transforms.assemble import AssembleFlows
from transforms.decode import DecodePackets
from transforms.handover import BY_VALUE, InProcess

IN_FLIGHT_OCTETS = 128 << 20
"""Prism queues without bound what a step does not keep up with; so much of packets may be underway on it."""


class EndlessJob:
    """One run of the main job on endless input.

    Args:
        plan: What is to be done.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._beam_options = plan.beam_options
        self._options = plan.beam_options.view_as(FlowOptions)
        self._streams = plan.beam_options.view_as(StreamOptions)

    def pipeline(self) -> beam.Pipeline:
        """Everything from the queues to the outputs, wired.

        Raises:
            InputError: A queue cannot be read, or a setting makes no sense.
        """
        pipeline = new_pipeline(self._beam_options, endless=True)
        plan = self._plan
        options, streams = self._options, self._streams
        bound_s = options.max_out_of_orderness_s
        reading = streams.settings(bound_s)
        read = [pipeline | f"Read {url}" >> streaming.open_input(url, reading) for url in options.input]
        deliveries = read[0] if len(read) == 1 else read | "AllQueues" >> beam.Flatten()
        arrivals, undecodable = deliveries | "DecodePackets" >> DecodePackets(options.payload_octets)
        followed = arrivals | "AssembleFlows" >> AssembleFlows(
            plan.settings,
            options.shards,
            options.merge_sensors,
            rules=streams.rules(bound_s),
            table_cache_octets=streams.table_cache_bytes,
            handover=InProcess(IN_FLIGHT_OCTETS) if self._in_one_process() else BY_VALUE,
        )
        refused = [undecodable, followed.rejects, *plan.written(followed.flows), *plan.told(followed.events)]
        age_s = streams.file_max_age_s
        rejects = RejectsSink(plan.rejects, options.max_rejects, plan.job, True, age_s)
        _ = refused | "AllRejects" >> beam.Flatten() | "WriteRejects" >> rejects
        _ = followed.events | "WriteSensorEvents" >> WriteSensorEvents(plan.sensors, plan.job, True, age_s)
        return pipeline

    def run(self) -> Summary | None:
        """Runs until it is stopped, or every stream has ended; files are complete then.

        Returns:
            The figures, as far as the runner tells them; None of a job that was only described, which is what
            Dataflow's launcher asks for with `--template_location`.

        Raises:
            InputError: A setting is wrong, or the job failed through a mistake of its user.
        """
        plan = self._plan
        pipeline = self.pipeline()
        compile_kernels(self._options.feature_module, self._options.quiet)
        outputs.adopt_left(plan.urls, plan.beside)
        started = time.monotonic()
        try:
            with mistakes_told(), stop_signals() as asked_to_stop:
                result = pipeline.run()
                if not getattr(result, "has_job", True):
                    return None
                running = RunningJob(result, self._beam_options, self._on_flink())
                if not self._options.quiet:
                    say("running; Ctrl-C completes the files and stops")
                running.wait(asked_to_stop)
        finally:
            held = outputs.complete(plan.urls, plan.beside, plan.job)
            if held:
                say(f"{held} files are still being written by processes of the runner")
        return running.figures(time.monotonic() - started)

    def _runner_is(self, name: str) -> bool:
        return name in (self._beam_options.view_as(StandardOptions).runner or "").lower()

    def _in_one_process(self) -> bool:
        """Whether all steps run in this process, and nobody takes over when it ends: Prism keeps nothing."""
        environment = self._beam_options.view_as(PortableOptions).environment_type
        return self._runner_is("prism") and environment in (None, "LOOPBACK")

    def _on_flink(self) -> bool:
        return self._runner_is("flink") or self._beam_options.view_as(FlinkRunnerOptions).flink_master != "[auto]"
