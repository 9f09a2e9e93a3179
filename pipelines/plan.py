"""What a run of the main job is made of, once its options are understood and its outputs are open."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

from pipelines.options import FlowOptions
from pipelines.verdicts import FlowStep, applied
from sinks.outputs import SinkContext, SinkUrl
from sinks.record_files import RecordFiles
from sinks.rejects import RejectFiles
from sinks.row_files import RowFiles
from sinks.sensors import SensorFiles, rows_of
from transforms.settings import FlowSettings

if TYPE_CHECKING:
    from pipelines.drift import WatchModel


class Plan(NamedTuple):
    """Settings that were checked, and what the run reads and writes.

    Attributes:
        beam_options: All options.
        settings: How flows are assembled.
        steps: What flows go through before the outputs.
        context: What the outputs know of the run.
        opened: The outputs and what writes them.
        rejects: Folder of rejects, or its URL.
        sensors: The same of sensors' events; of endless input alone.
        servers: Outputs that take those events, too.
        watch: What tells whether the model that scores still fits; None without one.
    """

    beam_options: PipelineOptions
    settings: FlowSettings
    steps: Sequence[FlowStep]
    context: SinkContext
    opened: Sequence[tuple[SinkUrl, beam.PTransform]]
    rejects: Path | str
    sensors: Path | str
    servers: Sequence[tuple[SinkUrl, beam.PTransform]] = ()
    watch: "WatchModel | None" = None

    @property
    def job(self) -> str:
        """A name that no other run shares."""
        return self.context.job

    @property
    def endless(self) -> bool:
        """Whether the input has no end."""
        return self.context.streaming

    @property
    def urls(self) -> list[SinkUrl]:
        """The outputs."""
        return [url for url, _ in self.opened]

    @property
    def beside(self) -> list[RecordFiles]:
        """How journals of what is written beside the outputs become files; in remote folders there are none."""
        files: list[RowFiles] = [RejectFiles(self.rejects), SensorFiles(self.sensors)]
        if self.watch is not None:
            files.append(self.watch.files)
        return [one for one in files if one.url is None]

    def written(self, flows: beam.PCollection) -> list[beam.PCollection]:
        """Wires everything behind assembly; gives what was refused there."""
        flows = applied(flows, self.steps)
        answers = [flows | f"Write {url}" >> sink for url, sink in self.opened]
        if self.watch is not None:
            answers.append(flows | "WatchModel" >> self.watch)
        return [answer for answer in answers if answer is not None]

    def told(self, events: beam.PCollection) -> list[beam.PCollection]:
        """Wires the outputs that take events of sensors, too; gives what was refused there."""
        if not self.servers:
            return []
        rows = events | "SensorRows" >> beam.Map(rows_of).with_output_types(pa.RecordBatch)
        return [rows | f"Write sensors to {url}" >> sink for url, sink in self.servers]

    def described(self) -> Iterator[str]:
        """What the run would do, one line each."""
        options = self.beam_options.view_as(FlowOptions)
        kind = "endless" if self.endless else "bounded"
        yield f"runner   {self.beam_options.view_as(StandardOptions).runner or 'DirectRunner'}, {kind} input"
        for url in options.input or ["demo traffic"]:
            yield f"input    {url}"
        columns = len(self.settings.columns().schema)
        yield f"flows    {', '.join(self.settings.feature_sets)}: {columns} columns"
        for label, transform in self.steps:
            yield f"then     {label}: {', '.join(field.name for field in transform.fields)}"
        for url, sink in self.opened:
            makes = ", ".join(getattr(sink, "makes", ()))
            yield f"output   {url}" + (f", where it makes: {makes}" if makes else "")
        yield f"rejects  {self.rejects}"
        if self.watch is not None:
            yield f"drift    {self.watch.files.place}"
        if self.endless:
            yield f"sensors  {', '.join([str(self.sensors), *(str(url) for url, _ in self.servers)])}"


class _Steps(PipelineVisitor):
    """Collects the names of steps, indented by how deep they lie."""

    def __init__(self, depth_most: int) -> None:
        self.lines: list[str] = []
        self._depth_most, self._depth = depth_most, 0

    def enter_composite_transform(self, transform_node: AppliedPTransform) -> None:
        self._tell(transform_node)
        self._depth += 1

    def leave_composite_transform(self, transform_node: AppliedPTransform) -> None:
        self._depth -= 1

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        self._tell(transform_node)

    def _tell(self, node: AppliedPTransform) -> None:
        if node.full_label and self._depth <= self._depth_most:
            outer = node.parent.full_label if node.parent is not None else ""
            self.lines.append("  " * (self._depth - 1) + node.full_label.removeprefix(outer).removeprefix("/"))


def graph_of(pipeline: beam.Pipeline, depth_most: int = 3) -> list[str]:
    """The pipeline's steps in the order of the data, those inside a step below it."""
    steps = _Steps(depth_most)
    pipeline.visit(steps)
    return steps.lines
