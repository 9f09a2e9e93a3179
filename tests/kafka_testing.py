"""Blocks for Kafka topics, and a runner for one reader: turn by turn, with what it keeps as bytes between."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.sdf_utils import (
    RestrictionTrackerView,
    ThreadsafeRestrictionTracker,
    ThreadsafeWatermarkEstimator,
)
from apache_beam.transforms.window import TimestampedValue
from flow_testing import START_NS, packets

from transforms import avro
from transforms.records import PacketBatch, Stream

SECOND = 1_000_000_000


def block(number: int, *, end: bool = False, at_s: float | None = None, count: int = 1, **of: Any) -> bytes:
    """A block of `count` packets at `at_s`, by default its number; `of` are parts of its stream, and `partitions`."""
    at_s = number if at_s is None else at_s
    partitions = of.pop("partitions", 1)
    stream = Stream(of.pop("sensor", "a"), of.pop("epoch", 1), of.pop("partition", 0), **of)
    made = packets(at_s=[at_s] * count)
    observed_ns = START_NS + round(at_s * SECOND)
    return avro.encode_block(PacketBatch(stream, number, observed_ns, made, partitions=partitions, end=end))


class Reader:
    """Gives a splittable DoFn its turns with one element, as a runner does.

    Attributes:
        over: The DoFn has read all that it will.
        watermark: As of the last turn, in seconds after `START_NS`; None before the first.
        saved: What a runner keeps of it between turns.
    """

    def __init__(self, fn: Any, element: Any) -> None:
        self.over = False
        self.watermark: float | None = None
        self._fn, self._element = fn, element
        self._coder = fn.restriction_coder()
        self.saved = self._coder.encode(fn.initial_restriction(element))

    def turn(self, most: int | None = None) -> list[Any]:
        """What one call of `process` gives; the runner interrupts it after `most` outputs."""
        tracker = ThreadsafeRestrictionTracker(self._fn.create_tracker(self._coder.decode(self.saved)))
        estimator = ThreadsafeWatermarkEstimator(ManualWatermarkEstimator(None))
        if hasattr(self._fn, "start_bundle"):
            self._fn.start_bundle()
        given, rest = [], None
        for output in self._fn.process(self._element, RestrictionTrackerView(tracker), estimator):
            given.append(output.value if isinstance(output, TimestampedValue) else output)
            if len(given) == most:
                rest = tracker.try_split(0)[1]
                most = None
        tracker.check_done()
        deferred = tracker.deferred_status()
        assert rest is None or deferred is None
        rest = rest or (deferred and deferred[0])
        self.over = rest is None
        if rest is not None:
            self.saved = self._coder.encode(rest)
        if estimator.current_watermark() is not None:
            self.watermark = estimator.current_watermark().micros / 1e6 - START_NS / SECOND
        return given

    def turns(self, done: Callable[[list[Any]], bool], limit_s: float = 30) -> list[Any]:
        """What turns give until `done` of all of it, or until it is over."""
        given: list[Any] = []
        end_s = time.monotonic() + limit_s
        while not self.over and not done(given):
            assert time.monotonic() < end_s, f"only {len(given)} outputs within {limit_s} s"
            given += self.turn()
        return given

    def all(self) -> list[Any]:
        """What it gives until it is over."""
        return self.turns(lambda _: False)


def numbers(deliveries: Iterable[Any]) -> list[int]:
    """The numbers of the blocks, in the order in which they came."""
    return [avro.decode_header(one.octets).sequence for one in deliveries if one.octets]
