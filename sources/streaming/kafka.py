"""A Kafka topic as an endless input: a native splittable DoFn over Kafka's own client, one restriction a partition.

`kafka://HOST:PORT/TOPIC`, with the settings that `queues.kafka` describes. Where a partition was read to, and what the
order of its blocks told, lies in the restriction: the runner keeps it, restores it after a failure and moves it to
another worker. Offsets are committed to the consumer group named by `group`, for lag monitoring; nothing is read from
there. Partitions that are added to the topic are found within half a minute, and read from their beginning.
"""

import logging
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.metrics import Metrics
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from queues.kafka_client import Topic, facts_of, topic_of
from queues.kafka_feed import AHEAD_OCTETS_MOST, Feeds, Fetched, PartitionFeed
from sources.queue_order import QueueOrder
from sources.streaming import StreamSettings, start_time_ns
from sources.streaming.kafka_progress import PartitionProgress, PartitionReadingCoder
from sources.streaming.kafka_topics import DiscoverPartitionsFn
from sources.streaming.reading_tracker import Reading, ReadingTracker, Step
from transforms import avro
from transforms.records import NO_TIME, Delivery, Gap, PacketBatch

TURN_OCTETS = 2 << 20
"""A turn of reading takes so much of a partition: the runner hands over small bundles while others are worked on."""

IDLE_S = 1.0
"""A bundle waits so long where there is nothing."""

QUIET_S = 10.0
"""A partition that was at its end for so long no longer holds the watermark back."""

_log = logging.getLogger(__name__)
_feeds = Feeds()


def open_input(url: str, settings: StreamSettings) -> "ReadKafka":
    """The transform that reads `kafka://HOST:PORT/TOPIC` for ever.

    Raises:
        InputError: The URL or a setting is wrong, no broker answers, or the topic cannot be used.
    """
    topic = topic_of(url.partition(":")[2], ("group",))
    start_ns = start_time_ns(settings.start_at)
    if facts_of(topic).has_receive_time is False:
        _log.warning(
            "%s: message.timestamp.type is CreateTime: sensors that fall silent and blocks from the future are not "
            "noticed; set it to LogAppendTime with kafka-configs",
            topic.url,
        )
    return ReadKafka(topic, settings, start_ns)


class ReadKafka(beam.PTransform):
    """Reads a topic, each partition in its order.

    Output: a `Delivery` for each message, at the block's observed time; gaps go with the block that shows them, or
    alone where the partition is quiet. Each message once in what a runner commits. The watermark is that of the stream
    furthest behind, less the bound.

    Args:
        topic: The topic.
        settings: How it is read.
        start_ns: The time to start at, if `settings` name one.
    """

    def __init__(self, topic: Topic, settings: StreamSettings, start_ns: int | None) -> None:
        super().__init__()
        self._topic, self._settings, self._start_ns = topic, settings, start_ns

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[Delivery]:
        """Applies the transform."""
        start: str | int = self._settings.start_at if self._start_ns is None else self._start_ns
        discover = DiscoverPartitionsFn(self._topic, start, self._settings.stop_at_end)
        partitions = (
            pipeline
            | "Topic" >> beam.Create([self._topic.url], reshuffle=False)
            | "Partitions" >> beam.ParDo(discover).with_output_types(tuple[int, int, int])
            | "Share" >> beam.Reshuffle()
        )
        read = ReadPartitionFn(self._topic, self._settings)
        return partitions | "Read" >> beam.ParDo(read).with_output_types(Delivery)


class ReadPartitionFn(beam.DoFn, RestrictionProvider):
    """Reads partitions; see `ReadKafka`. An element is a partition, its first offset, and that of partition 0.

    Partitions take turns in a bundle: one that has nothing waits for any that has.
    """

    def __init__(self, topic: Topic, settings: StreamSettings) -> None:
        self._topic = topic
        self._sensors = tuple(settings.sensors)
        self._stop_at_end = settings.stop_at_end
        self._bound_ns = int(settings.max_out_of_orderness_s * 1e9)
        self._timeout_ns = int(settings.sensor_timeout_s * 1e9)
        self._name = uuid.uuid4().hex
        self._blocks = Metrics.counter("read_queue", "blocks_read")
        self._octets = Metrics.counter("read_queue", "octets_read")
        self._empty = Metrics.counter("read_queue", "messages_empty")
        self._lag = Metrics.distribution("read_queue", "queue_lag_ms")
        self._behind = Metrics.distribution("read_queue", "blocks_behind")

    def initial_restriction(self, part: tuple[int, int, int]) -> Reading:
        """A partition from its first offset on."""
        return Reading(PartitionProgress(part[1], self._new_order(part[1] > 0)))

    def create_tracker(self, restriction: Reading) -> ReadingTracker:
        """Its tracker."""
        return ReadingTracker(restriction)

    def restriction_size(self, part: tuple[int, int, int], restriction: Reading) -> int:
        """Nobody knows how much is to come."""
        return 1

    def restriction_coder(self) -> PartitionReadingCoder:
        """Its coder."""
        return PartitionReadingCoder()

    def truncate(self, part: tuple[int, int, int], restriction: Reading) -> None:
        """A job that is drained reads nothing more."""

    def start_bundle(self) -> None:
        """The partitions of a bundle wait together."""
        self._wait_until_s = time.monotonic() + IDLE_S

    def teardown(self) -> None:
        """Gives back what waits for another turn."""
        _feeds.close()
        _Leader.forget(self._name)

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        part: tuple[int, int, int],
        tracker: Any = beam.DoFn.RestrictionParam(),
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),  # noqa: B008
    ) -> Iterator[Delivery]:
        """Reads what is there, or waits a little for it, and goes on in the next bundle."""
        progress: PartitionProgress = tracker.current_restriction().progress
        feed = _feeds.take(self._topic, part[0], progress.offset)
        over = False
        try:
            feed.commit(progress.offset)
            over = yield from self._turn(part, feed, progress, tracker, estimator)
        finally:
            if over:
                feed.close()
            else:
                _feeds.park(feed)

    def _turn(
        self,
        part: tuple[int, int, int],
        feed: PartitionFeed,
        progress: PartitionProgress,
        tracker: Any,
        estimator: ManualWatermarkEstimator,
    ) -> Generator[Delivery, None, bool]:
        """Reads for a turn; True if there is nothing more to read, ever."""
        _feeds.wait(feed, max(0.0, self._wait_until_s - time.monotonic()))
        messages = feed.take(TURN_OCTETS)
        if not messages:
            over = yield from self._pause(part, feed, progress, tracker)
            if over:
                return True
        for message in messages:
            self._wait_until_s = 0.0  # what was read is not to wait for others
            header = _header_of(message)
            step = Step(partial(_arrived, message, header))
            if not tracker.try_claim(step):
                return False
            yield self._delivery(part[0], message, header, *step.result)
        self._tell_time(feed, progress, estimator)
        tracker.defer_remainder()
        return False

    def _pause(
        self, part: tuple[int, int, int], feed: PartitionFeed, progress: PartitionProgress, tracker: Any
    ) -> Generator[Delivery, None, bool]:
        """What a partition without news tells: what is missing, and whether reading is over."""
        gaps: list[Gap] = []
        quiet_ns = int(feed.quiet_s * 1e9)
        if quiet_ns > self._bound_ns:
            step = Step(lambda known: known.order.idle(quiet_ns))
            if not tracker.try_claim(step):
                return False
            gaps += step.result
        over = self._stop_at_end and feed.caught_up and self._has_ended(part, progress.order)
        if over:
            step = Step(lambda known: known.order.finished(), last=True)
            if not tracker.try_claim(step):
                return False
            gaps += step.result
        if gaps:
            yield Delivery(b"", self._source(part[0]), progress.offset, gaps=tuple(gaps))
        return over

    def _has_ended(self, part: tuple[int, int, int], order: QueueOrder) -> bool:
        """Whether all that is written to the partition has ended; partition 0 knows who else writes."""
        number, _, first_offset = part
        if number == 0:
            return order.ended(self._sensors)
        if order.frontier_ns != NO_TIME:  # a stream is open
            return False
        leader = _Leader.of(self._name, self._topic, first_offset, self._new_order)
        return leader.order_now(self._bound_ns).ended(self._sensors) and order.ended_like(leader.order, number)

    def _delivery(
        self, number: int, message: Fetched, header: PacketBatch | None, follows: int, gaps: tuple[Gap, ...]
    ) -> Delivery:
        self._blocks.inc()
        self._octets.inc(len(message.octets))
        if not message.octets:
            self._empty.inc()
        if message.received_ns != NO_TIME:
            self._lag.update(max(0, time.time_ns() - message.received_ns) // 1_000_000)
        delivery = Delivery(
            message.octets, self._source(number), message.offset, message.received_ns, follows, True, gaps
        )
        if header is None:
            return delivery
        return TimestampedValue(delivery, Timestamp(micros=header.observed_ns // 1000))

    def _tell_time(self, feed: PartitionFeed, progress: PartitionProgress, estimator: ManualWatermarkEstimator) -> None:
        self._behind.update(feed.behind)
        now_ns = time.time_ns()
        time_ns = progress.order.frontier_ns
        if feed.quiet_s > QUIET_S:
            time_ns = max(time_ns, now_ns - int(QUIET_S * 1e9))
        if time_ns != NO_TIME:
            watermark = Timestamp(micros=(min(time_ns, now_ns) - self._bound_ns) // 1000)
            current = estimator.current_watermark()
            if current is None or watermark > current:
                estimator.set_watermark(watermark)

    def _new_order(self, joins: bool = False) -> QueueOrder:
        return QueueOrder(self._bound_ns, self._timeout_ns, joins, forgets=not self._stop_at_end)

    def _source(self, number: int) -> str:
        return f"{self._topic.url}/{number}"


class _Leader:
    """Partition 0, read once more in this process for the sake of the others: to know when they have ended."""

    _lock = threading.Lock()
    _leaders: ClassVar[dict[str, "_Leader"]] = {}

    def __init__(self, topic: Topic, offset: int, order: QueueOrder) -> None:
        self.order = order
        self._feed = _feeds.made(topic, 0, offset)

    @classmethod
    def of(cls, name: str, topic: Topic, offset: int, new_order: Any) -> "_Leader":
        """The one of this transform."""
        with cls._lock:
            leader = cls._leaders.get(name)
            if leader is None:
                leader = cls._leaders[name] = cls(topic, offset, new_order())
            return leader

    @classmethod
    def forget(cls, name: str) -> None:
        """Closes the one of this transform."""
        with cls._lock:
            leader = cls._leaders.pop(name, None)
        if leader is not None:
            leader._feed.close()

    def order_now(self, bound_ns: int) -> QueueOrder:
        """The order of partition 0, with what is ready of it."""
        with self._lock:
            for message in self._feed.take(AHEAD_OCTETS_MOST):
                _in_order(self.order, message, _header_of(message))
            quiet_ns = int(self._feed.quiet_s * 1e9)
            if quiet_ns > bound_ns:
                self.order.idle(quiet_ns)
            return self.order


def _header_of(message: Fetched) -> PacketBatch | None:
    """The block without its packets; None if it is none, which is told where packets are decoded."""
    try:
        return avro.decode_header(message.octets)
    except avro.BlockDecodeError:
        return None


def _arrived(message: Fetched, header: PacketBatch | None, progress: PartitionProgress) -> tuple[int, tuple[Gap, ...]]:
    """The epoch that the block's stream follows, and what is missing; the place moves behind the message."""
    progress.offset = message.offset + 1
    return _in_order(progress.order, message, header)


def _in_order(order: QueueOrder, message: Fetched, header: PacketBatch | None) -> tuple[int, tuple[Gap, ...]]:
    return (-1, ()) if header is None else order.arrived(header, message.received_ns)
