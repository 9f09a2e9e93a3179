"""What flows go through between assembly and the outputs, in bounded and endless jobs alike."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import enrich_options, score_options
from pipelines.enrich_options import EnrichOptions
from pipelines.first_run import compile_enrichment
from pipelines.options import FlowOptions
from pipelines.score_options import ScoreOptions
from transforms import fields
from transforms.fields import Field


class AppendsColumns(Protocol):
    """A transform from record batches of flows to the same flows with more columns.

    Attributes:
        fields: The columns that it appends, in order.
    """

    fields: tuple[Field, ...]

    def check(self, schema: pa.Schema) -> None:
        """Refuses flows that lack a column that it needs.

        Raises:
            InputError: It names the column.
        """


class FlowStep(NamedTuple):
    """One of the steps, in order.

    Attributes:
        label: Its name in the pipeline; part of what a running job is updated by.
        transform: An `AppendsColumns`.
    """

    label: str
    transform: "beam.PTransform[beam.PCollection[pa.RecordBatch], beam.PCollection[pa.RecordBatch]]"


def steps_of(beam_options: PipelineOptions) -> list[FlowStep]:
    """The steps that the options ask for, their settings checked.

    Raises:
        InputError: A setting is wrong, or a file cannot be used.
    """
    with ThreadPoolExecutor(1, "files") as beside:  # one reads databases while the other loads libraries
        enriching = beside.submit(_enriching, beam_options)
        scoring = _scoring(beam_options)
        return [*enriching.result(), *scoring]


def _enriching(beam_options: PipelineOptions) -> list[FlowStep]:
    settings = enrich_options.settings_of(beam_options.view_as(EnrichOptions))
    if settings is None:
        return []
    compile_enrichment(beam_options.view_as(FlowOptions).quiet)
    from transforms.enrich.enrich_flows import EnrichFlows  # libraries that other jobs start sooner without

    return [FlowStep("EnrichFlows", EnrichFlows(settings))]


def _scoring(beam_options: PipelineOptions) -> list[FlowStep]:
    settings = score_options.settings_of(beam_options.view_as(ScoreOptions))
    if settings is None:
        return []
    from transforms.score import ScoreFlows

    return [FlowStep("ScoreFlows", ScoreFlows(settings))]


def schema_after(schema: pa.Schema, steps: Sequence[FlowStep]) -> pa.Schema:
    """What record batches of `schema` hold after the steps.

    Raises:
        InputError: A step needs a column that they lack.
    """
    for step in steps:
        step.transform.check(schema)
        for field in fields.arrow_schema(step.transform.fields):
            schema = schema.append(field)
    return schema


def applied(flows: beam.PCollection, steps: Sequence[FlowStep]) -> beam.PCollection:
    """The flows after the steps."""
    for label, transform in steps:
        flows = flows | label >> transform
    return flows
