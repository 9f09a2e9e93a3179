"""Which partitions a Kafka topic has, also those that are added while a job runs, and where to begin in them."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.timestamp import Duration, Timestamp

from queues.kafka_client import PATIENCE_S, Topic, Troubles, library, made_client, partitions_of
from sources.streaming.reading_tracker import Reading, ReadingTracker, Step
from transforms.records import InputError

LOOK_S = 30
"""The topic is looked at so often."""

_log = logging.getLogger(__name__)


class Known:
    """How many partitions are known."""

    def __init__(self) -> None:
        self.partitions = 0

    def grow(self, partitions: int) -> None:
        """Takes note of how many there are now."""
        self.partitions = max(self.partitions, partitions)


class DiscoverPartitionsFn(beam.DoFn, RestrictionProvider):
    """Gives each partition once: its number, its first offset, and the first offset of partition 0.

    The first offset of partitions that come later is their beginning, wherever reading started.

    Args:
        topic: The topic.
        start: `earliest`, `latest`, or a time in ns since the Unix epoch.
        once: The partitions that there are at the start are all.
        look_s: Seconds between two looks.
    """

    def __init__(self, topic: Topic, start: str | int, once: bool, look_s: float = LOOK_S) -> None:
        self._topic, self._start, self._once, self._look_s = topic, start, once, look_s
        self._consumer: Any = None
        self._troubles = Troubles(topic)
        self._told = False

    def initial_restriction(self, element: str) -> Reading:
        """No partition is known."""
        return Reading(Known())

    def create_tracker(self, restriction: Reading) -> ReadingTracker:
        """Its tracker."""
        return ReadingTracker(restriction)

    def restriction_size(self, element: str, restriction: Reading) -> int:
        """It costs nothing."""
        return 1

    def truncate(self, element: str, restriction: Reading) -> None:
        """A job that is drained begins with nothing new."""

    def teardown(self) -> None:
        """Closes the client."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        element: str,
        tracker: Any = beam.DoFn.RestrictionParam(),
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),  # noqa: B008
    ) -> Iterator[tuple[int, int, int]]:
        """Looks at the topic, and again after a while."""
        known: Known = tracker.current_restriction().progress
        before = known.partitions
        if self._consumer is None:
            settings = {"group.id": "flowbeam", "enable.auto.commit": False, "error_cb": self._troubles}
            self._consumer = made_client(self._topic, "Consumer", settings)
        now = self._partitions(before)
        added = range(before, now)
        if before and added:
            _log.warning("%s: has %d partitions now", self._topic.url, now)
        offsets = self._first_offsets(added, "earliest" if before else self._start)
        if not tracker.try_claim(Step(lambda one: one.grow(now), last=self._once and now > 0)):
            return
        for number, offset in zip(added, offsets, strict=True):
            yield number, offset, offsets[0]
        if not (self._once and now):
            if now:
                estimator.set_watermark(Timestamp.now())
            tracker.defer_remainder(Duration(seconds=self._look_s if now else 1))

    def _partitions(self, before: int) -> int:
        """How many there are; as many as before, if nobody tells.

        Raises:
            InputError: None is known yet, and waiting does not help.
        """
        try:
            now = partitions_of(self._topic, self._consumer, PATIENCE_S)
        except InputError:
            if not before:
                raise
            return before  # whoever reads them notices if the topic is really gone
        if now is None and not before:
            self._wait()
        return now or before

    def _wait(self) -> None:
        """Says once that no broker tells of any partition: nobody reads yet who would notice."""
        self._consumer.poll(0)  # has `_troubles` know why
        line = self._troubles.line
        if line is not None and self._troubles.lasting:
            raise InputError(line)
        if line is not None and not self._told:
            self._told = True
            _log.warning("%s; waiting", line)

    def _first_offsets(self, numbers: range, start: str | int) -> list[int]:
        """Where to begin in partitions; waits for brokers that do not answer."""
        end_s = time.monotonic() + 6 * PATIENCE_S
        kafka = library(self._topic)
        while True:
            try:
                return [self._first_offset(kafka, number, start) for number in numbers]
            except kafka.KafkaException as error:
                if time.monotonic() > end_s:
                    raise InputError(f"{self._topic.url}: no broker tells where to begin ({error})") from error

    def _first_offset(self, kafka: Any, number: int, start: str | int) -> int:
        partition = kafka.TopicPartition(self._topic.name, number)
        if isinstance(start, int):
            partition.offset = start // 1_000_000
            (found,) = self._consumer.offsets_for_times([partition], timeout=PATIENCE_S)
            if found.error is not None:
                raise kafka.KafkaException(found.error)
            if found.offset >= 0:
                return int(found.offset)
        first, end = self._consumer.get_watermark_offsets(partition, timeout=PATIENCE_S, cached=False)
        return int(first if start == "earliest" else end)
