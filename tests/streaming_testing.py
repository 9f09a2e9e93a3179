"""Driving a reader of an endless input by hand, as a runner does: in bundles, each from what the last one left."""

import time

from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.sdf_utils import (
    RestrictionTrackerView,
    ThreadsafeRestrictionTracker,
    ThreadsafeWatermarkEstimator,
)
from apache_beam.transforms.window import TimestampedValue

from transforms import avro


class Finalizer:
    """Stands for the runner's word that a bundle is committed."""

    def __init__(self):
        self.callbacks = []

    def register(self, callback):
        self.callbacks.append(callback)

    def finalize(self):
        for callback in self.callbacks:
            callback()


class Reader:
    """One restriction of an endless input, read in bundles.

    Args:
        fn: The splittable DoFn.
        provider: Its restrictions.
        element: What is read.
    """

    def __init__(self, fn, provider, element):
        self.fn, self.provider, self.element = fn, provider, element
        self.restriction = provider.initial_restriction(element)
        self.watermark = None
        self.over = False

    def bundle(self, *before, interrupt_after=None, commit=True):
        """What one bundle gives; `before` are arguments of process between element and restriction.

        Args:
            before: Such as a finalizer.
            interrupt_after: After as many elements the runner interrupts the reading.
            commit: False if the bundle fails in the end, so that it is read again.
        """
        coder = self.provider.restriction_coder()
        restriction = coder.decode(coder.encode(self.restriction))
        tracker = ThreadsafeRestrictionTracker(self.provider.create_tracker(restriction))
        estimator = ThreadsafeWatermarkEstimator(ManualWatermarkEstimator(self.watermark))
        elements, rest = [], None
        for element in self.fn.process(self.element, *before, RestrictionTrackerView(tracker), estimator):
            elements.append(element.value if isinstance(element, TimestampedValue) else element)
            if len(elements) == interrupt_after:
                _, rest = tracker.try_split(0)
        tracker.check_done()
        if commit:
            deferred = tracker.deferred_status()
            rest = rest or (deferred and deferred[0])
            self.over = rest is None
            self.restriction, self.watermark = rest, estimator.current_watermark()
        return elements

    def until(self, wanted, limit_s=20):
        """What bundles give until `wanted` holds for all of it."""
        elements = []
        until_s = time.monotonic() + limit_s
        while not wanted(elements):
            assert time.monotonic() < until_s, f"{len(elements)} elements in {limit_s} s"
            assert not self.over, f"over after {len(elements)} elements"
            elements += self.bundle()
        return elements


def numbers(deliveries):
    """(sensor, epoch, partition, sequence) of each block."""
    heads = [avro.decode_header(one.octets) for one in deliveries if one.octets]
    return [(*head.stream, head.sequence) for head in heads]
