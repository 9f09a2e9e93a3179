"""`--input` URLs: what opens each, as one value that travels to the workers."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import queues
from pipelines.terminal import Advance
from sources import captures, read_queue
from sources.capture_file import CaptureFile
from sources.captures import ReadReport, ReadSettings, SensorInput
from sources.octets import STANDARD_INPUT, Unreadable
from sources.window import Window
from transforms.records import MERGED_SENSORS, InputError, PacketBatch, Reject

DAMAGE = "damage: "
"""Before a line about a damaged input in the name of its counter: counters are what every runner brings back."""


def is_queue(url: str) -> bool:
    """Whether an `--input` names a queue; anything else is a path."""
    scheme, colon, _ = url.partition(":")
    return bool(colon) and scheme in queues.schemes()


def is_endless(urls: Sequence[str], streaming: bool) -> bool:
    """Whether the input has no end: a queue other than a spool, or a spool with `--streaming`.

    Raises:
        InputError: Files and endless input in one job, or `--streaming` with files.
    """
    endless = [url for url in urls if is_queue(url) and (streaming or not url.startswith("spool:"))]
    rest = [url for url in urls if url not in endless]
    if rest and (endless or streaming):
        why = f"{endless[0]} has no end" if endless else "--streaming reads queues"
        raise InputError(f"--input {rest[0]}: {why}; read it in a job of its own, without --streaming")
    if streaming and not urls:
        raise InputError("--streaming: without --input there is nothing to wait for; name a queue")
    return bool(endless)


def find_inputs(
    urls: Sequence[str], sensor: str, sensor_from: Literal["all", "file", "folder"], merge_sensors: bool
) -> list[Any]:
    """One element for each sensor of the captures, and of each queue; captures of merged sensors are one.

    Raises:
        InputError: An input does not exist, or holds nothing that could be read.
    """
    files = [url for url in urls if not is_queue(url)]
    found: list[Any] = captures.sensor_inputs(files, sensor, sensor_from) if files else []
    if merge_sensors and found:
        found = [SensorInput(MERGED_SENSORS, tuple(path for one in found for path in one.files))]
    for url in urls:
        if is_queue(url):
            found += read_queue.queue_inputs(url)
    return found


def is_hopeless(inputs: Iterable[Any]) -> bool:
    """Whether no input is a capture that could be read: the run will only say why."""
    window = Window()
    for one in inputs:
        for path in one.files if isinstance(one, SensorInput) else (STANDARD_INPUT,):
            if path == STANDARD_INPUT or not os.path.isfile(path):
                return False  # it cannot be looked at without taking from it
            try:
                CaptureFile(path, window).close()
            except Unreadable:
                continue
            return False
    return True


def octets_of(inputs: Iterable[Any]) -> int | None:
    """Size of the capture files; None where it is not known."""
    paths = [path for one in inputs if isinstance(one, SensorInput) for path in one.files]
    if not paths or any(path == "-" for path in paths):
        return None
    return sum(os.path.getsize(path) for path in paths)


@dataclass
class Report:
    """What an input told, in the form that assembling counts."""

    packets_read: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    samples: list[Reject] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class Reader:
    """Opens inputs on the worker; what is damaged is one note each, `DAMAGE` and the line.

    Attributes:
        settings: How capture files are read.
        alone: There is one input: where nothing of it can be read, the run fails. Otherwise the others go on.
    """

    settings: ReadSettings
    alone: bool = True

    def __call__(self, element: Any) -> tuple[Report, Iterable[PacketBatch]]:
        """The report, complete once the batches are read; and the batches."""
        report = Report()
        return report, self._read(element, report)

    def _read(self, element: Any, report: Report) -> Iterator[PacketBatch]:
        reading = ReadReport()
        read_packets = captures.read_packets if isinstance(element, SensorInput) else read_queue.read_packets
        try:
            yield from read_packets(element, self.settings, reading, Advance())
        except InputError as error:
            if self.alone:
                raise
            reading.damage = [str(error)]
        if self.alone and reading.damage and not reading.packets_read:
            raise InputError("; ".join(reading.damage))
        report.notes.update((DAMAGE + line, 1) for line in reading.damage)
        report.packets_read = reading.packets_read
        report.rejects = dict(reading.rejects)
        report.samples = reading.samples
        for name in ("transport_truncated", "fragments_unresolved", "interface_drops", "blocks_repeated"):
            report.notes[name] = getattr(reading, name, 0)
