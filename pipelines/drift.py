"""Whether the model of a job still fits: wired beside the outputs, in bounded and endless jobs alike."""

from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam

from pipelines.drift_options import DriftSettings
from sinks.drift import DriftFiles, WriteDrift
from sinks.outputs import SinkUrl
from sources.labels import ReadLabels
from transforms.drift import rows
from transforms.drift.monitor import MonitorDrift


class WatchModel(beam.PTransform):
    """Compares scored flows with what their model knows, and writes what is noticed.

    Input: record batches of scored flows. Output: rejects of the labels that came back and of servers, None where there
    are neither.

    Args:
        model: The folder of the model that scores the flows.
        settings: What is compared.
        folder: Where rows go.
        job: As in `SinkContext`, like the rest.
        streaming: Whether the input does not end.
        watch_labels: Files that come to the folder of labels are read, too; a job that ends with its streams reads
            those that are there.
        file_max_age_s: When files of a streaming job appear.
        servers: Outputs that take the rows, too.

    Attributes:
        files: How journals of an endless job become files of the folder.

    Raises:
        InputError: The model has no reference, labels are not there, or the folder cannot be written.
    """

    def __init__(
        self,
        model: str,
        settings: DriftSettings,
        folder: str | Path,
        job: str,
        streaming: bool = False,
        watch_labels: bool = False,
        file_max_age_s: float = 60.0,
        servers: Sequence[tuple[SinkUrl, beam.PTransform]] = (),
    ) -> None:
        super().__init__()
        self._servers = servers
        self._monitor = MonitorDrift(model, settings.inputs, settings.answers, settings.labels is not None)
        self._labels = (
            None if settings.labels is None else ReadLabels(settings.labels, settings.label_column, watch_labels)
        )
        self._write = WriteDrift(folder, rows.SCHEMA, job, streaming, file_max_age_s)
        self.files = DriftFiles(folder, rows.SCHEMA)

    def expand(self, flows):  # Beam would warn of a hint that may be None
        """Adds the steps."""
        refused = []
        if self._labels is not None:
            labels = flows.pipeline | "ReadLabels" >> self._labels
            flows = (flows, labels.labels)
            refused.append(labels.rejects)
        noticed = flows | "MonitorDrift" >> self._monitor
        _ = noticed | "WriteDrift" >> self._write
        refused += [noticed | f"Write drift to {url}" >> sink for url, sink in self._servers]
        return refused | "Refused" >> beam.Flatten() if len(refused) > 1 else next(iter(refused), None)
