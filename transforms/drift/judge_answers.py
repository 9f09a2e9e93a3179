"""Whether a model's answers are still right, where labels come back: `JudgeAnswers`."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsList
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow

from transforms.coders import RecordBatchCoder
from transforms.drift import rows
from transforms.drift.answers import ANSWERS, LABELS, id_halves, judge, match
from transforms.drift.compare_inputs import at_time, final_flows
from transforms.drift.decay import JUDGED, rule
from transforms.drift.errors import ErrorsMonitor
from transforms.drift.models import WatchedModels

SHARDS = 16
"""Keys by which endless flows and labels meet."""

MOST_BATCHES = 64
"""Batches that a shard remembers answers in, before they are made one."""

_log = logging.getLogger(__name__)


class AnswersRule(NamedTuple):
    """How answers are judged.

    Attributes:
        run_length: As in `decay.rule`.
        remembered: Of endless input, so many answers wait for their labels; those of flows that ended first are
            forgotten where there are more. As many labels wait for their flows.
    """

    run_length: float = 100_000
    remembered: int = 1_000_000


class JudgeAnswers(beam.PTransform):
    """Compares a model's answers with labels that come back, and tests whether it has decayed.

    Input: (flows, labels): record batches of flows with `predicted_class` and `model_id`, and of `LABELS`, both in any
    order. Output: record batches of rows of the drift output. Of bounded input, the labels are looked up in memory, and
    the test goes through flows in the order of their ends. Of endless input flow and label wait for each other, and the
    test is made anew whenever labels come. One warning is logged when the model has decayed.

    Args:
        models: The models that may have scored the flows.
        rule: How answers are judged.
    """

    def __init__(self, models: WatchedModels, rule: AnswersRule) -> None:
        super().__init__()
        self.models, self.rule = models, rule

    def expand(self, inputs):  # Beam would warn of a hint that is a tuple of collections
        """Applies the transform."""
        flows, labels = inputs
        if flows.is_bounded:
            look_up = beam.ParDo(_LookUpFn(self.models), AsList(labels)).with_output_types(tuple[str, bytes])
            judged = flows | "LookUp" >> look_up | "GroupAnswers" >> beam.GroupByKey()
            return judged | "TestAll" >> beam.ParDo(_TestAllFn(self.models, self.rule))
        kind = tuple[int, pa.RecordBatch]
        answers = flows | "ShardAnswers" >> beam.FlatMap(_answers_by_shard).with_output_types(kind)
        returned = labels | "ShardLabels" >> beam.FlatMap(_by_shard).with_output_types(kind)
        together = (answers, returned) | "AnswersAndLabels" >> beam.Flatten()
        meet = beam.ParDo(_MeetFn(self.models, self.rule)).with_output_types(tuple[str, bytes])
        return together | "Meet" >> meet | "Test" >> beam.ParDo(_TestFn(self.models, self.rule))


def _answers(flows: pa.RecordBatch) -> pa.RecordBatch:
    final = final_flows(flows).select(ANSWERS.names)
    return final.filter(final["model_id"].is_valid())


def _answers_by_shard(flows: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    return _by_shard(_answers(flows))


def _by_shard(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each shard: flow ids are hashes."""
    shards = id_halves(batch["flow_id"])[:, 0] % SHARDS
    for shard in np.unique(shards).tolist():
        yield shard, batch.filter(pa.array(shards == shard))


class _Judging(beam.DoFn):
    """Counts answers that are judged."""

    def __init__(self, models: WatchedModels) -> None:
        self._models = models
        self._judged = Metrics.counter("drift", "answers_judged")
        self._wrong = Metrics.counter("drift", "answers_wrong")
        self._of_others = Metrics.counter("drift", "answers_of_unknown_models")

    def setup(self) -> None:
        self._models.look()

    def _by_model(self, known: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
        for model_id in pc.unique(known["model_id"]).to_pylist():
            of_it = known.filter(pc.equal(known["model_id"], model_id))
            watched = self._models.of(model_id)
            if watched is None:
                self._of_others.inc(len(of_it))
                continue
            judged = judge(of_it, watched.model)
            self._judged.inc(len(judged))
            self._wrong.inc(int(judged["wrong"].sum()))
            if len(judged):
                yield model_id, judged.tobytes()


class _LookUpFn(_Judging):
    def start_bundle(self) -> None:
        self._labels: pa.RecordBatch | None = None

    def process(self, flows: pa.RecordBatch, labels: list[pa.RecordBatch]) -> Iterator[tuple[str, bytes]]:
        if self._labels is None:
            self._labels = _one(labels, LABELS)
        yield from self._by_model(match(_answers(flows), self._labels).known)


class _MeetFn(_Judging):
    """Answers and labels of a shard wait for each other."""

    ANSWERS = BagStateSpec("answers", RecordBatchCoder())
    LABELS = BagStateSpec("labels", RecordBatchCoder())
    WAITING = ReadModifyWriteStateSpec("waiting", beam.coders.TupleCoder([beam.coders.VarIntCoder()] * 3))

    def __init__(self, models: WatchedModels, rule: AnswersRule) -> None:
        super().__init__(models)
        self._most = max(1, rule.remembered // SHARDS)
        self._forgotten = Metrics.counter("drift", "answers_forgotten")
        self._unmatched = Metrics.counter("drift", "labels_forgotten")

    def process(
        self,
        keyed: tuple[int, pa.RecordBatch],
        answers: Any = beam.DoFn.StateParam(ANSWERS),
        labels: Any = beam.DoFn.StateParam(LABELS),
        waiting: Any = beam.DoFn.StateParam(WAITING),
    ) -> Iterator[tuple[str, bytes]]:
        _, batch = keyed
        flows, batches, early = waiting.read() or (0, 0, 0)
        if "label" in batch.schema.names:
            met = match(_one(answers.read() if flows else (), ANSWERS), batch)
            if len(met.known):
                flows, batches = _rewritten(answers, met.answers)
            if len(met.labels):
                labels.add(met.labels)
                early += len(met.labels)
            if early > self._most:
                early = self._forget_labels(labels)
        else:
            met = match(batch, _one(labels.read() if early else (), LABELS))
            if len(met.known):
                early, _ = _rewritten(labels, met.labels)
            if len(met.answers):
                answers.add(met.answers)
                flows, batches = flows + len(met.answers), batches + 1
            if flows > self._most + self._most // 4 or batches > MOST_BATCHES:
                flows, batches = _rewritten(answers, self._newest(_one(answers.read(), ANSWERS)))
        waiting.write((flows, batches, early))
        yield from self._by_model(met.known)

    def _newest(self, answers: pa.RecordBatch) -> pa.RecordBatch:
        """The answers that stay: of the flows that ended last."""
        more = len(answers) - self._most
        if more <= 0:
            return answers
        self._forgotten.inc(more)
        order = pc.sort_indices(answers, [("flow_end_ns", "ascending"), ("flow_id", "ascending")])
        return answers.take(order[more:])

    def _forget_labels(self, labels: Any) -> int:
        kept = _one(labels.read(), LABELS)
        more = len(kept) - self._most // 2
        self._unmatched.inc(more)
        return _rewritten(labels, kept.slice(more))[0]


def _rewritten(bag: Any, batch: pa.RecordBatch) -> tuple[int, int]:
    """Puts this alone into a bag; returns its rows and how many batches they are."""
    bag.clear()
    if len(batch):
        bag.add(batch)
    return len(batch), int(len(batch) > 0)


def _one(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """The batches as one."""
    table = pa.Table.from_batches([batch.cast(schema) for batch in batches], schema).combine_chunks()
    return table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], schema)


class _Testing(beam.DoFn):
    """What bounded and endless input have in common."""

    def __init__(self, models: WatchedModels, rule: AnswersRule) -> None:
        self._models, self._rule = models, rule
        self._decayed = Metrics.counter("drift", "decays_found")
        self._recovered = Metrics.counter("drift", "recoveries_found")

    def _monitor(self, model_id: str) -> ErrorsMonitor | None:
        watched = self._models.of(model_id)
        if watched is None or not watched.reference.judged:
            return None
        reference = watched.reference
        return ErrorsMonitor(model_id, rule(reference.judged, reference.wrong, self._rule.run_length))

    def _told(self, found: Iterable[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
        told = []
        for row in found:
            told.append(row)
            self._recovered.inc(int(row["event"] == rows.MODEL_RECOVERED))
            if row["event"] == rows.MODEL_DECAYED:
                self._decayed.inc()
                _log.warning("%s", described(row))
        if told:
            yield rows.batch(told)


class _TestAllFn(_Testing):
    def process(self, keyed: tuple[str, Iterable[bytes]]) -> Iterator[pa.RecordBatch]:
        monitor = self._monitor(keyed[0])
        if monitor is not None:
            yield from self._told(monitor.add(np.frombuffer(b"".join(keyed[1]), JUDGED)))
            yield from self._told(monitor.report())


class _TestFn(_Testing):
    STANDING = ReadModifyWriteStateSpec("standing", BytesCoder())
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(
        self,
        keyed: tuple[str, bytes],
        state: Any = beam.DoFn.StateParam(STANDING),
        end: Any = beam.DoFn.TimerParam(END),
    ) -> Iterator[pa.RecordBatch]:
        model_id, octets = keyed
        monitor = self._restored(model_id, state.read())
        if monitor is not None:
            end.set(GlobalWindow().max_timestamp())
            yield from self._told(monitor.add(np.frombuffer(octets, JUDGED)))
            state.write(monitor.to_bytes())

    @on_timer(END)
    def finish(
        self, key: Any = beam.DoFn.KeyParam, state: Any = beam.DoFn.StateParam(STANDING)
    ) -> Iterator[pa.RecordBatch]:
        monitor = self._restored(key, state.read())
        if monitor is not None:
            yield from self._told(monitor.report())
        state.clear()

    def _restored(self, model_id: str, kept: bytes | None) -> ErrorsMonitor | None:
        monitor = self._monitor(model_id)
        if monitor is not None and kept:
            monitor.restore(kept)
        return monitor


def described(row: dict[str, Any]) -> str:
    """The alarm in one line."""
    return (
        f"model decayed: {row['model_id']} was wrong about {row['wrong']} of the last {row['flows']} labelled flows,"
        f" up to {at_time(row['window_end_ns'])}; usual are at most {row['usual_error_rate']:.1%}; train it again"
    )
