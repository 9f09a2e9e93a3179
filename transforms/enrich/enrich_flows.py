"""The step of the pipeline that appends what is known of the addresses of flows."""

from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics

from transforms.enrich.enrichment import Enrichment, enrichment_of
from transforms.enrich.settings import EnrichSettings


class EnrichFlows(beam.PTransform):
    """Appends places, autonomous systems, zones, host names, threats and services to flows.

    Input: record batches of flows. Output: the same batches with the columns of `fields` after their own, at the same
    event time, in the same order; no flow is lost or refused. But for host names, columns are a function of flow and
    files. Files that change are read again, between batches; where a new state cannot be used, the one before stays
    and `enrichment_problem` says so.

    Args:
        settings: Where what is known comes from.

    Attributes:
        fields: The columns that it appends.

    Raises:
        InputError: A file cannot be used; the message names it.
    """

    def __init__(self, settings: EnrichSettings) -> None:
        super().__init__()
        self.settings = settings
        self.fields = enrichment_of(settings).fields

    def check(self, schema: pa.Schema) -> None:
        """Refuses flows that lack a column that it needs.

        Raises:
            InputError: It names the column.
        """
        self.settings.check(schema)

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Adds the step."""
        return flows | "AppendWhatIsKnown" >> beam.ParDo(_EnrichFn(self.settings))


class _EnrichFn(beam.DoFn):
    def __init__(self, settings: EnrichSettings) -> None:
        self._settings = settings
        self._enrichment: Enrichment | None = None
        self._flows_enriched = Metrics.counter("enrich", "flows_enriched")
        self._flows_with_problems = Metrics.counter("enrich", "flows_with_problems")
        self._files_read_again = Metrics.counter("enrich", "files_read_again")
        self._files_refused = Metrics.counter("enrich", "files_refused")

    def setup(self) -> None:
        self._enrichment = enrichment_of(self._settings)

    def process(self, flows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        assert self._enrichment is not None
        enriched = self._enrichment.append(flows)
        self._flows_enriched.inc(len(flows))
        self._flows_with_problems.inc(len(flows) - enriched["enrichment_problem"].null_count)
        read_again, refused = self._enrichment.take_counts()
        self._files_read_again.inc(read_again)
        self._files_refused.inc(refused)
        yield enriched
