"""Pub/Sub as an endless input: Beam's own reader on Dataflow, StreamingPull in a splittable DoFn elsewhere.

`pubsub://PROJECT/SUBSCRIPTION`; its settings are told in `queues/pubsub.py`. A message is acknowledged after the
runner has committed what it gave, on Prism with the bundle after it, on Flink two checkpoints later; until then its
lease is extended. A reader that dies leaves its messages to others after `ack_deadline_s`: nothing is lost, and what
comes twice is counted once where flows are assembled. A runner that never tells of commits has all of it redelivered to
the next job, which is one warning; on Flink that means checkpoints are off.

Order is not promised: deliveries say so, and no gaps are told. `--start_at=latest` or a time moves the subscription
there, for all who read it, and back only if it retains acknowledged messages. With `--stop_at_end` there is one reader.
"""

import atexit
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from queues.pubsub_client import CALL_S, Place, check, client_of, place_of, trouble_of
from sources.streaming import StreamSettings, start_time_ns
from sources.streaming.pubsub_progress import EPOCHS_MOST, PullProgress, PullReadingCoder
from sources.streaming.pubsub_pull import Pull, Pulled
from sources.streaming.reading_tracker import Reading, ReadingTracker, Step
from sources.streaming.streams_seen import StreamsSeen
from transforms import avro
from transforms.records import NO_TIME, Delivery, InputError, PacketBatch

READERS, READERS_MOST = 2, 100
ACK_DEADLINE_S = 30

HOLD_S, IDLE_S = 0.1, 1.0
"""A reader hands over what it has after so long, and waits so long for messages."""

UNCOMMITTED_S = 60.0
"""A reading that has ended waits no longer for the runner to tell of a commit."""

_pulls: dict[tuple[str, int], Pull] = {}
_seen: dict[str, StreamsSeen] = {}
_lock = threading.Lock()


class _Source(NamedTuple):
    """What one reader reads; `name` is of this transform alone."""

    name: str
    subscription: Place
    reader: int
    ack_deadline_s: int
    stop_at_end: bool
    sensors: tuple[str, ...]
    bound_ns: int
    timeout_ns: int


def open_input(url: str, settings: StreamSettings) -> "PullMessages":
    """The transform that reads `pubsub://PROJECT/SUBSCRIPTION` for ever.

    Raises:
        InputError: There is no such subscription, it may not be used, or a setting is wrong.
    """
    subscription = place_of("subscription", url.partition(":")[2], ("readers", "ack_deadline_s"))
    transform = PullMessages(subscription, settings)
    client = client_of(subscription)
    try:
        check(subscription, client)
    finally:
        client.transport.close()
    return transform


class PullMessages(beam.PTransform):
    """Reads the messages of a subscription, those that are there and those to come.

    Output: a `Delivery` for each message, not in order, perhaps repeated, at the block's observed time.

    Args:
        subscription: The subscription.
        settings: How it is read.

    Raises:
        InputError: A setting is wrong.
    """

    def __init__(self, subscription: Place, settings: StreamSettings) -> None:
        super().__init__()
        readers = subscription.number("readers", READERS, 1, READERS_MOST)
        deadline_s = subscription.number("ack_deadline_s", ACK_DEADLINE_S, 10, 600)
        start_time_ns(settings.start_at)
        self._subscription, self._settings = subscription, settings
        name = uuid.uuid4().hex
        self.sources = [
            _Source(
                name, subscription, reader, deadline_s, settings.stop_at_end, tuple(settings.sensors),
                int(settings.max_out_of_orderness_s * 1e9), int(settings.sensor_timeout_s * 1e9),
            )
            for reader in range(1 if settings.stop_at_end else readers)
        ]  # fmt: skip

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Delivery]:
        """Applies the transform.

        Raises:
            InputError: The subscription cannot be moved to where reading shall start.
        """
        if self._settings.start_at != "earliest":
            _seek(self._subscription, self._settings.start_at)
        runner = pipeline.pipeline.options.view_as(StandardOptions).runner or ""
        if "Dataflow" in runner:
            from apache_beam.io import ReadFromPubSub

            read = ReadFromPubSub(subscription=self._subscription.path, with_attributes=True)
            messages = pipeline | "Read" >> read
            return messages | "Deliver" >> beam.ParDo(_DeliverFn(self._subscription)).with_output_types(Delivery)
        sources = pipeline | "Readers" >> beam.Create(self.sources)
        return sources | "Pull" >> beam.ParDo(PullFn()).with_output_types(Delivery)


class PullReadings(RestrictionProvider):
    """Each reader is a restriction."""

    def initial_restriction(self, source: _Source) -> Reading:
        """Nothing was seen."""
        return Reading(PullProgress())

    def create_tracker(self, restriction: Reading) -> ReadingTracker:
        """Its tracker."""
        return ReadingTracker(restriction)

    def restriction_size(self, source: _Source, restriction: Reading) -> int:
        """Nobody knows how much is to come."""
        return 1

    def restriction_coder(self) -> PullReadingCoder:
        """Its coder."""
        return PullReadingCoder()

    def truncate(self, source: _Source, restriction: Reading) -> None:
        """A job that is drained reads nothing more."""


class PullFn(beam.DoFn):
    """Delivers what was pulled; see `PullMessages`."""

    def __init__(self) -> None:
        self._blocks = Metrics.counter("read_queue", "blocks_read")
        self._octets = Metrics.counter("read_queue", "octets_read")
        self._lag = Metrics.distribution("read_queue", "queue_lag_ms")

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        source: _Source,
        finalizer: Any = beam.DoFn.BundleFinalizerParam,  # before the restriction, or Beam 2.77 mixes them up
        tracker: Any = beam.DoFn.RestrictionParam(PullReadings()),  # noqa: B008 - Beam's way
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),  # noqa: B008
    ) -> Iterator[Delivery]:
        """Delivers for a short while, and goes on in the next bundle."""
        progress: PullProgress = tracker.current_restriction().progress
        pull = _pull_of(source)
        bundle = pull.begin(progress.token, progress.bundle)
        if not tracker.try_claim(Step(lambda known: known.begin(pull.token, bundle))):
            return
        messages = pull.take(IDLE_S)
        idle, until_s = not messages, time.monotonic() + HOLD_S
        while messages:
            for at, message in enumerate(messages):
                header = _header_of(message.octets, source.subscription)
                received_ns = NO_TIME if source.stop_at_end else message.published_ns  # its end asks for all sensors
                if not tracker.try_claim(Step(partial(_saw, header, received_ns))):
                    pull.put_back(messages[at:])
                    pull.await_commit(finalizer.register)
                    return
                pull.give(message)
                yield self._delivery(message, header, source, progress)
            messages = pull.take(0.0) if time.monotonic() < until_s else []
        _advance(estimator, progress, source, pull.quiet_s)
        if idle and source.stop_at_end and _ended(source, progress, pull):
            if tracker.try_claim(Step(lambda _: None, last=True)):
                pull.close()
            return
        pull.await_commit(finalizer.register)
        tracker.defer_remainder()

    def _delivery(
        self, message: Pulled, header: PacketBatch | None, source: _Source, progress: PullProgress
    ) -> Delivery:
        self._blocks.inc()
        self._octets.inc(len(message.octets))
        self._lag.update((time.time_ns() - message.published_ns) // 1_000_000)
        follows = -1
        if header is not None:
            before = _epoch_before(source.name, header, message.published_ns)
            follows = max(before, progress.seen.follows(header.stream))
        url = source.subscription.url
        return _at_its_time(
            Delivery(message.octets, url, message.position, message.published_ns, follows, ordered=False), header
        )


class _DeliverFn(beam.DoFn):
    """The same of what Beam's own reader gives."""

    def __init__(self, subscription: Place) -> None:
        self._subscription = subscription

    def process(self, message: Any) -> Iterator[Delivery]:
        header = _header_of(message.data, self._subscription)
        number, url = message.message_id or "", self._subscription.url
        position = int(number) if number.isdecimal() else 0
        received_ns = _ns_of(message.publish_time)
        follows = -1 if header is None else _epoch_before(self._subscription.path, header, received_ns)
        yield _at_its_time(Delivery(message.data, url, position, received_ns, follows, ordered=False), header)


def _ns_of(time_of_publishing: Any) -> int:
    """A time as Google's libraries give it: a datetime, with nanoseconds if they have them."""
    if time_of_publishing is None:
        return NO_TIME
    nanosecond = getattr(time_of_publishing, "nanosecond", time_of_publishing.microsecond * 1000)
    return int(time_of_publishing.replace(microsecond=0).timestamp()) * 10**9 + int(nanosecond)


def _pull_of(source: _Source) -> Pull:
    """The pull that this process keeps for a reader.

    Raises:
        Exception: The last one failed with it.
    """
    with _lock:
        pull = _pulls.get((source.name, source.reader))
        if pull is None or pull.closed:
            _pulls.pop((source.name, source.reader), None)
            if pull is not None:
                pull.check()
            pull = _pulls[source.name, source.reader] = Pull(source.subscription, source.ack_deadline_s)
        return pull


@atexit.register
def _end_all() -> None:
    """Others need not wait until this process's leases expire."""
    for pull in _pulls.values():
        pull.close()
    for pull in _pulls.values():
        pull.join(2.0)


def _header_of(octets: bytes, subscription: Place) -> PacketBatch | None:
    try:
        return avro.decode_header(octets, subscription.url)
    except avro.BlockDecodeError:  # told, with the octets, where packets are decoded
        return None


def _saw(header: PacketBatch | None, received_ns: int, progress: PullProgress) -> None:
    if header is not None:
        progress.seen.arrived(header.stream, header, received_ns)


def _epoch_before(name: str, header: PacketBatch, received_ns: int) -> int:
    """The epoch before a block's, as far as any reader in this process has seen one; -1 without."""
    with _lock:
        seen = _seen.setdefault(name, StreamsSeen(EPOCHS_MOST))
        seen.arrived(header.stream, header, received_ns)
        return seen.follows(header.stream)


def _at_its_time(delivery: Delivery, header: PacketBatch | None) -> Any:
    if header is None:
        return delivery
    return TimestampedValue(delivery, Timestamp(micros=header.observed_ns // 1000))


def _advance(estimator: Any, progress: PullProgress, source: _Source, quiet_s: float) -> None:
    """Moves the watermark on; by the clock where nothing has come for the sensors' timeout."""
    now_ns = time.time_ns()
    told_ns = progress.seen.watermark_ns(source.bound_ns, source.timeout_ns, now_ns)
    if quiet_s * 1e9 > source.timeout_ns:
        told_ns = max(told_ns, now_ns - source.timeout_ns)
    if told_ns != NO_TIME:
        watermark, current = Timestamp(micros=told_ns // 1000), estimator.current_watermark()
        if current is None or watermark > current:
            estimator.set_watermark(watermark)


def _ended(source: _Source, progress: PullProgress, pull: Pull) -> bool:
    """Whether all streams have ended, and the runner has committed what they gave, or seems never to do so."""
    whole = progress.seen.ended(source.sensors)
    if not whole:  # the first numbers may have been read by another job; or they come again when their leases expire
        enough = progress.seen.ended(source.sensors, whole=False)
        if not enough or pull.quiet_s < 2 * source.ack_deadline_s:
            return False
    return not pull.uncommitted or pull.quiet_s > UNCOMMITTED_S


def _seek(subscription: Place, start_at: str) -> None:
    """Moves a subscription to a time.

    Raises:
        InputError: That may not be done.
    """
    start_ns = start_time_ns(start_at)
    client = client_of(subscription)
    try:
        time_of_start = datetime.fromtimestamp((time.time_ns() if start_ns is None else start_ns) / 1e9, timezone.utc)
        client.seek(request={"subscription": subscription.path, "time": time_of_start}, retry=None, timeout=CALL_S)
    except Exception as error:
        raise InputError(f"--start_at: {trouble_of(subscription, error).line}") from error
    finally:
        client.transport.close()
