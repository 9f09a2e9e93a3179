"""A spool as an endless input: files are read as they appear, each stream in its order.

`spool:DIR`. What was read of each stream lies in the reader's restriction, so that it goes on where it was interrupted,
also in the middle of a file. All workers that may read must reach the folder under the same name; one reads at a time.
A spool has no receive time: a sensor that falls silent has not ended. `--start_at=latest` leaves out the files that are
there when the job starts, a time leaves out those that were completed before it.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.metrics import Metrics
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from queues import Damaged, Message
from queues.object_files import ContainerReader
from queues.spool_files import names_in, parsed
from sources.queue_order import QueueOrder
from sources.streaming import StreamSettings, start_time_ns
from sources.streaming.reading_tracker import Reading, ReadingTracker, Step
from sources.streaming.spool_progress import FolderWatch, SpoolProgress, SpoolReadingCoder
from transforms import avro
from transforms.records import NO_TIME, Delivery, Gap, InputError, PacketBatch

HOLD_S, IDLE_S = 0.1, 1.0
"""A reader hands over what it has after so long, and looks so long for new files where there are none."""

_log = logging.getLogger(__name__)
_watches: dict[str, tuple[int, FolderWatch]] = {}


class _Watched(NamedTuple):
    """A folder and how it is read; `name` is of this transform alone."""

    name: str
    folder: str
    start_at: str
    stop_at_end: bool
    sensors: tuple[str, ...]
    bound_ns: int
    timeout_ns: int


def open_input(url: str, settings: StreamSettings) -> "WatchSpool":
    """The transform that reads `spool:DIR` for ever.

    Raises:
        InputError: There is no such folder, or a setting is wrong.
    """
    folder, question, unknown = url.partition(":")[2].partition("?")
    if not folder:
        raise InputError(f"{url}: names no folder; write spool:DIR")
    if question:
        raise InputError(f"{url}: unknown setting {unknown.partition('=')[0]}; a spool that is read has none")
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; make it, or start the sensor that writes it first")
    start_time_ns(settings.start_at)
    return WatchSpool(str(Path(folder).absolute()), settings)


class WatchSpool(beam.PTransform):
    """Reads the files of a folder, those that are there and those to come.

    Output: a `Delivery` for each block, streams in their order, at its observed time; damaged pieces as they are, once.

    Args:
        folder: The spool.
        settings: How it is read.
    """

    def __init__(self, folder: str, settings: StreamSettings) -> None:
        super().__init__()
        self.watched = _Watched(
            uuid.uuid4().hex, folder, settings.start_at, settings.stop_at_end, tuple(settings.sensors),
            int(settings.max_out_of_orderness_s * 1e9), int(settings.sensor_timeout_s * 1e9),
        )  # fmt: skip

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Delivery]:
        """Applies the transform."""
        folder = pipeline | "Folder" >> beam.Create([self.watched], reshuffle=False)
        return folder | "Watch" >> beam.ParDo(WatchFolderFn()).with_output_types(Delivery)


class SpoolReadings(RestrictionProvider):
    """A folder is one restriction."""

    def initial_restriction(self, watched: _Watched) -> Reading:
        """What is left out at the start counts as read."""
        names = names_in(Path(watched.folder))
        first = {told[:3]: told.sequence for told in map(parsed, reversed(names)) if told is not None}
        joins = any(first.values()) or (bool(names) and watched.start_at != "earliest")
        order = QueueOrder(watched.bound_ns, watched.timeout_ns, joins, forgets=not watched.stop_at_end)
        progress = SpoolProgress(order)
        if watched.start_at != "earliest":
            start_ns = start_time_ns(watched.start_at)
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # it was removed just now
                    if start_ns is None or Path(watched.folder, name).stat().st_mtime_ns < start_ns:
                        progress.skip(name)
        return Reading(progress)

    def create_tracker(self, restriction: Reading) -> ReadingTracker:
        """Its tracker."""
        return ReadingTracker(restriction)

    def restriction_size(self, watched: _Watched, restriction: Reading) -> int:
        """Nobody knows how much is to come."""
        return 1

    def restriction_coder(self) -> SpoolReadingCoder:
        """Its coder."""
        return SpoolReadingCoder()

    def truncate(self, watched: _Watched, restriction: Reading) -> None:
        """A job that is drained reads nothing more."""


class WatchFolderFn(beam.DoFn):
    """Reads what is new in a folder; see `WatchSpool`."""

    def __init__(self) -> None:
        self._blocks = Metrics.counter("read_queue", "blocks_read")
        self._octets = Metrics.counter("read_queue", "octets_read")
        self._damaged = Metrics.counter("read_queue", "parts_damaged")

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        watched: _Watched,
        tracker: Any = beam.DoFn.RestrictionParam(SpoolReadings()),  # noqa: B008 - Beam's way
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),  # noqa: B008
    ) -> Iterator[Delivery]:
        """Reads for a short while, and goes on in the next bundle."""
        progress: SpoolProgress = tracker.current_restriction().progress
        watch = _watch_of(watched, progress)
        name = _awaited(progress, watch)
        until_s = time.monotonic() + HOLD_S
        if name is None and (step := _pause(watched, progress, watch)):
            if not tracker.try_claim(step) or step.last:
                return
            if step.result:
                yield Delivery(b"", watched.folder, gaps=step.result)
        while name is not None:
            going_on = yield from self._read(Path(watched.folder, name), tracker, progress, until_s)
            if not going_on:
                return
            _set(estimator, progress, watched)
            if time.monotonic() > until_s:
                break
            name = progress.place[0] if progress.place else watch.next()
        step = Step(partial(_rest, watched, watch))
        if tracker.try_claim(step):
            _watches[watched.name] = step.result, watch
            tracker.defer_remainder()

    def _read(
        self, path: Path, tracker: ReadingTracker, progress: SpoolProgress, until_s: float
    ) -> Generator[Delivery, None, bool]:
        """Reads a file, perhaps not to its end; False if the runner has interrupted it."""
        source = str(path)
        _, start, taken = progress.place or (path.name, 0, 0)
        remains: Delivery | None = None
        delivered = False
        try:
            with open(path, "rb") as file:
                for message in ContainerReader(source, file).messages(start):
                    if message.position == start and taken:
                        taken -= 1
                        continue
                    if delivered and time.monotonic() > until_s:
                        return True
                    header = _header_of(message)
                    step = Step(partial(_arrived, path.name, message, header))
                    if not tracker.try_claim(step):
                        return False
                    yield self._delivery(message, header, *step.result)
                    delivered = True
        except FileNotFoundError:
            _log.warning("%s: was removed before it was read; its blocks are missing", source)
        except IsADirectoryError:
            _log.warning("%s: is a folder", source)
        except OSError as error:
            raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
        except Damaged as damage:
            self._damaged.inc()
            _log.warning("%s", damage)
            remains = Delivery(damage.piece, source, damage.position)
        if not tracker.try_claim(Step(lambda known: known.finished(path.name))):
            return False
        if remains is not None and remains.octets:
            yield remains
        return True

    def _delivery(self, message: Message, header: PacketBatch | None, follows: int, gaps: tuple[Gap, ...]) -> Delivery:
        self._blocks.inc()
        self._octets.inc(len(message.octets))
        delivery = Delivery(message.octets, message.source, message.position, NO_TIME, follows, True, gaps)
        if header is None:
            return delivery
        return TimestampedValue(delivery, Timestamp(micros=header.observed_ns // 1000))


def _watch_of(watched: _Watched, progress: SpoolProgress) -> FolderWatch:
    """The watch that this process has kept, if it was interrupted where the runner goes on; else a new one."""
    token, watch = _watches.pop(watched.name, (0, None))
    if watch is not None and token == progress.token:
        return watch.of(progress.has)
    return FolderWatch(Path(watched.folder), progress.has)


def _arrived(
    name: str, message: Message, header: PacketBatch | None, progress: SpoolProgress
) -> tuple[int, tuple[Gap, ...]]:
    return progress.arrived(name, message, header)


def _rest(watched: _Watched, watch: FolderWatch, progress: SpoolProgress) -> int:
    """Ends a bundle; the token under which the watch is kept."""
    if watch.changed and not watched.stop_at_end:  # its end asks for all sensors
        progress.forget(watch, progress.seen.watermark_ns(watched.bound_ns, watched.timeout_ns, time.time_ns()))
        watch.changed = False
    return progress.interrupt()


def _awaited(progress: SpoolProgress, watch: FolderWatch) -> str | None:
    """The file to read next, waited for up to a second; None if there is none."""
    if progress.place:
        return progress.place[0]
    until_s = time.monotonic() + IDLE_S
    while (name := watch.next()) is None and (left_s := until_s - time.monotonic()) > 0:
        time.sleep(max(0.001, min(watch.wait_s, left_s)))
    return name


def _pause(watched: _Watched, progress: SpoolProgress, watch: FolderWatch) -> Step | None:
    """What a pause without new files tells, once: that the reading is over, or what is missing; None if nothing."""
    if watched.stop_at_end and progress.ended(watched.sensors):
        return Step(lambda _: None, last=True)
    if watch.told or watch.quiet_s * 1e9 <= watched.bound_ns:
        return None
    watch.told = True
    return Step(lambda known: known.order.idle(watched.bound_ns + 1))


def _header_of(message: Message) -> PacketBatch | None:
    try:
        return avro.decode_header(message.octets, message.source)
    except avro.BlockDecodeError:  # told, with the octets, where packets are decoded
        return None


def _set(estimator: ManualWatermarkEstimator, progress: SpoolProgress, watched: _Watched) -> None:
    told_ns = progress.seen.watermark_ns(watched.bound_ns, watched.timeout_ns, time.time_ns())
    if told_ns != NO_TIME:
        watermark = Timestamp(micros=told_ns // 1000)
        current = estimator.current_watermark()
        if current is None or watermark > current:
            estimator.set_watermark(watermark)
