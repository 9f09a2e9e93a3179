"""Alerts of a source and class once in a window of event time, however many flows, bundles and workers there are."""

import hashlib
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from sinks import alerts

_SEEN = np.dtype([("who", "V16"), ("window", "i8")])
"""An alert that was let pass: digest of source and class, and its window."""

KEPT_WINDOWS = 3
"""Alerts of windows so far behind the newest are forgotten; one of them that comes once more passes once more."""

SEEN_MOST = 200_000
"""Of alerts remembered; the oldest are forgotten beyond."""


class FirstAlerts(beam.PTransform):
    """Lets the first alert of each source and class in a window pass; the others are counted.

    Input: record batches of scored flows. Output: record batches of alerts alone, in one place, in no certain order.
    A window is `window_s` of event time (`flow_start_ns`), from the Unix epoch on; 0 lets every alert pass.

    Args:
        step: Under which name suppressed alerts are counted.
        window_s: Its length.
    """

    def __init__(self, step: str, window_s: float) -> None:
        super().__init__()
        self.step = step
        self.window_ns = round(window_s * 1e9)

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Adds the steps that choose alerts, bring them to one place and compare them."""
        return (
            flows
            | "ChooseAlerts" >> beam.ParDo(_ChooseFn())
            | "FirstOfWindow" >> beam.ParDo(_FirstFn(self.step, self.window_ns))
        )


class _ChooseFn(beam.DoFn):
    def process(self, flows: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        found = alerts.chosen(flows)
        if len(found):
            yield "", found


class _FirstFn(beam.DoFn):
    SEEN = ReadModifyWriteStateSpec("seen", BytesCoder())

    def __init__(self, step: str, window_ns: int) -> None:
        self._window_ns = window_ns
        self._suppressed = Metrics.counter(step, "alerts_suppressed")

    def process(
        self, keyed: tuple[str, pa.RecordBatch], seen: Any = beam.DoFn.StateParam(SEEN)
    ) -> Iterator[pa.RecordBatch]:
        found = keyed[1]
        if not self._window_ns:
            yield found
            return
        first, memory = unseen(found, self._window_ns, seen.read() or b"")
        self._suppressed.inc(len(found) - len(first))
        if len(first):
            seen.write(memory)
            yield first


def unseen(found: pa.RecordBatch, window_ns: int, memory: bytes) -> tuple[pa.RecordBatch, bytes]:
    """The alerts that are the first of their source, class and window, and what is to be remembered now."""
    known = np.frombuffer(memory, _SEEN)
    fresh = np.empty(len(found), _SEEN)
    fresh["who"] = digests(found)
    fresh["window"] = found["flow_start_ns"].to_numpy() // window_ns
    both = np.concatenate((known, fresh))
    _, places = np.unique(both, return_index=True)  # of the first of each
    places.sort()
    kept = both[places]
    newest = int(kept["window"].max())
    kept = kept[kept["window"] > newest - KEPT_WINDOWS]
    if len(kept) > SEEN_MOST:
        kept = kept[np.sort(np.argsort(kept["window"], kind="stable")[-SEEN_MOST:])]
    first = places[places >= len(known)] - len(known)
    return found.take(pa.array(first)), kept.tobytes()


def digests(found: pa.RecordBatch) -> np.ndarray:
    """16 octets for each alert that name its source and class."""
    named = pc.binary_join_element_wise(
        found["src_ip"], found["predicted_class"].cast(pa.string()), "\0", null_handling="replace"
    ).dictionary_encode()
    each = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in named.dictionary.to_pylist()]
    return np.array(each, "V16")[named.indices.to_numpy()]
