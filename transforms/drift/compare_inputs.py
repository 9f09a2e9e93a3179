"""Whether inputs are still those that a model learned from: `CompareInputs`."""

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms import coders  # noqa: F401 - record batches have theirs once it is imported
from transforms.drift import rows
from transforms.drift.inputs import InputsMonitor, InputsRule, Noticed, Part
from transforms.drift.models import WatchedModels
from transforms.model.inputs import model_inputs

WINDOWS_AT_A_TIME = 512
"""Counts of so many windows are kept of a bundle, then handed on."""

_log = logging.getLogger(__name__)


class CompareInputs(beam.PTransform):
    """Compares what a model is given with what it learned from, window by window.

    Input: record batches of flows with `model_id` and `score`, in any order. Output: record batches of rows of the
    drift output. A flow counts in the window in which it ended; interim records count in none. Of bounded input all
    windows are compared at the end, in order; of endless input each once flows have been seen that ended
    `lateness_ns` after it, and flows that come later are counted as late and left out. Counts are added: order and
    batching make no difference. One warning is logged when the alarm begins.

    Args:
        models: The models that may have scored the flows.
        rule: How windows are made and when they alarm.
    """

    def __init__(self, models: WatchedModels, rule: InputsRule) -> None:
        super().__init__()
        self.models, self.rule = models, rule

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Applies the transform."""
        count = beam.ParDo(_CountFn(self.models, self.rule.window_ns)).with_output_types(tuple[str, bytes])
        counted = flows | "CountInputs" >> count
        if flows.is_bounded:
            together = counted | "GroupWindows" >> beam.GroupByKey()
            return together | "CompareAll" >> beam.ParDo(_CompareAllFn(self.models, self.rule))
        return counted | "Compare" >> beam.ParDo(_CompareFn(self.models, self.rule))


def final_flows(flows: pa.RecordBatch) -> pa.RecordBatch:
    """The final records of a batch: interim ones say again what these say."""
    final = pc.equal(flows["record_kind"], "final")
    return flows if pc.all(final).as_py() in (True, None) else flows.filter(final)


def parts_by_model(flows: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The final records of each model; those that none has scored are left out."""
    flows = final_flows(flows)
    ids = pc.unique(flows["model_id"]).drop_null().to_pylist() if len(flows) else []
    for model_id in ids:
        of_it = pc.equal(flows["model_id"], model_id)
        yield model_id, flows if pc.all(of_it, skip_nulls=False).as_py() else flows.filter(of_it)


class _CountFn(beam.DoFn):
    def __init__(self, models: WatchedModels, window_ns: int) -> None:
        self._models, self._window_ns = models, window_ns
        self._counted = Metrics.counter("drift", "flows_counted")
        self._unknown = Metrics.counter("drift", "flows_of_unknown_models")

    def setup(self) -> None:
        self._models.look()

    def start_bundle(self) -> None:
        self._parts: dict[tuple[str, int], Part] = {}

    def process(self, flows: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
        for model_id, scored in parts_by_model(flows):
            watched = self._models.of(model_id)
            if watched is None:
                self._unknown.inc(len(scored))
                continue
            self._counted.inc(len(scored))
            assert watched.model.feature_set is not None
            ends_ns = scored["flow_end_ns"].to_numpy(zero_copy_only=False)
            windows, groups = np.unique(ends_ns // self._window_ns, return_inverse=True)
            columns = model_inputs(scored, watched.model.feature_set, watched.features)
            scores = scored["score"].to_numpy(zero_copy_only=False)
            newest_ns = int(ends_ns.max())
            counts = watched.binning.counts(columns, scores, groups)
            amounts = np.bincount(groups)
            for at, window in enumerate(windows.tolist()):
                part = Part(window, newest_ns, int(amounts[at]), counts[at])
                known = self._parts.get((model_id, window))
                self._parts[model_id, window] = part if known is None else known + part
        if len(self._parts) > WINDOWS_AT_A_TIME:
            yield from self._taken()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for element in self._taken():
            yield WindowedValue(element, GlobalWindow().start, (GlobalWindow(),))

    def _taken(self) -> Iterator[tuple[str, bytes]]:
        parts, self._parts = self._parts, {}
        for (model_id, _), part in parts.items():
            yield model_id, part.to_bytes()


class _Comparing(beam.DoFn):
    """What bounded and endless input have in common."""

    def __init__(self, models: WatchedModels, rule: InputsRule) -> None:
        self._models, self._rule = models, rule
        self._unknown = Metrics.counter("drift", "flows_of_unknown_models")
        self._late = Metrics.counter("drift", "flows_late")
        self._compared = Metrics.counter("drift", "windows_compared")
        self._changed = Metrics.counter("drift", "windows_changed")
        self._too_few = Metrics.counter("drift", "windows_too_small")

    def _monitor(self, model_id: str) -> InputsMonitor | None:
        watched = self._models.of(model_id)
        return None if watched is None else InputsMonitor(watched, self._rule)

    def _told(self, noticed: Iterable[Noticed]) -> Iterator[pa.RecordBatch]:
        told = []
        for row, crossed in noticed:
            told.append(row)
            enough, changed = row["event"] != rows.INPUTS_TOO_FEW, row["event"] == rows.INPUTS_CHANGED
            self._compared.inc(int(enough))
            self._changed.inc(int(changed))
            self._too_few.inc(int(not enough))
            if crossed:
                _log.warning("%s", described(row))
        if told:
            yield rows.batch(told)


class _CompareAllFn(_Comparing):
    def process(self, keyed: tuple[str, Iterable[bytes]]) -> Iterator[pa.RecordBatch]:
        monitor = self._monitor(keyed[0])
        if monitor is not None:
            for octets in keyed[1]:
                monitor.add(Part.from_bytes(octets))
            yield from self._told(monitor.close(everything=True))


class _CompareFn(_Comparing):
    OPEN = ReadModifyWriteStateSpec("open", BytesCoder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(
        self,
        keyed: tuple[str, bytes],
        state: Any = beam.DoFn.StateParam(OPEN),
        end: Any = beam.DoFn.TimerParam(END),
    ) -> Iterator[pa.RecordBatch]:
        model_id, octets = keyed
        part = Part.from_bytes(octets)
        monitor = self._restored(model_id, state.read())
        if monitor is None:  # the worker is new, and so is the model
            self._unknown.inc(part.flows)
            return
        end.set(GlobalWindow().max_timestamp())
        self._late.inc(monitor.add(part))
        yield from self._told(monitor.close())
        state.write(monitor.to_bytes())

    @on_timer(END)
    def finish(
        self, key: Any = beam.DoFn.KeyParam, state: Any = beam.DoFn.StateParam(OPEN)
    ) -> Iterator[pa.RecordBatch]:
        monitor = self._restored(key, state.read())
        if monitor is not None:
            yield from self._told(monitor.close(everything=True))
        state.clear()

    def _restored(self, model_id: str, kept: bytes | None) -> InputsMonitor | None:
        monitor = self._monitor(model_id)
        if monitor is not None and kept:
            monitor.restore(kept)
        return monitor


def described(row: dict[str, Any]) -> str:
    """The alarm in one line."""
    most = ", ".join(one["feature"] for one in row["features"][:3])
    return (
        f"inputs changed: flows that ended from {at_time(row['window_start_ns'])} on are unlike what model"
        f" {row['model_id']} learned from: mean PSI {row['psi']:.2f}, most of all {most}"
    )


def at_time(time_ns: int) -> str:
    """A time as people read it."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
