"""Labels for batches of flows, and what matched what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.labels.attacks import ANSWER, EITHER, FORWARD, NOTHING, Attack, FlowColumns, Teller
from transforms.fields import Field, arrow_schema
from transforms.records import InputError

LABEL, ATTACK, AS_BENIGN = "label", "attack", "benign"
ATTEMPTED_AS = (LABEL, ATTACK, AS_BENIGN)
"""What attempted attacks are labelled: `attempted`, as the attack, or as benign."""

ATTEMPTED = "attempted"

FIELDS = (
    Field("label", pa.string(), "", "What the flow is: an attack's name, `attempted`, or benign; null if not known."),
    Field("attack_category", pa.string(), "", "Kind of the attack, also of an attempted one; null without."),
    Field(
        "label_source", pa.string(), "", "File, line and attack that the label is from; null of flows nothing names."
    ),
)
"""The columns that labelling appends."""

_READ = (
    "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "flow_first_ns", "flow_start_ns", "flow_end_ns",
    "fwd_payload_octets", "rev_payload_octets",
)  # fmt: skip


@dataclass
class LabelSettings:
    """How labels are given.

    Attributes:
        benign: The label of flows that nothing names.
        attempted: One of `ATTEMPTED_AS`.
    """

    benign: str = "benign"
    attempted: str = LABEL


class Matched(NamedTuple):
    """What became of an attack: a row of the table of what matched what.

    Attributes:
        attack: Which.
        matched: Flows that it holds for.
        labelled: Flows that are labelled as it.
        attempted: Flows that did not send what it needs.
        lost: Flows that an attack with precedence took.
        unmatched_events: Alerts or notices that were in no flow.
    """

    attack: Attack
    matched: int
    labelled: int
    attempted: int
    lost: int
    unmatched_events: int


class Overlap(NamedTuple):
    """Flows that two attacks hold for; the first took them."""

    first: Attack
    second: Attack
    flows: int


class Labeller:
    """Labels batches, in any order, and counts.

    Args:
        tellers: What tells of attacks, by precedence.
        settings: How labels are given.
    """

    def __init__(self, tellers: Sequence[Teller], settings: LabelSettings | None = None) -> None:
        self.settings = settings or LabelSettings()
        self.attacks = [attack for teller in tellers for attack in teller.attacks]
        self._tellers = tellers
        self._firsts = np.cumsum([0, *(len(teller.attacks) for teller in tellers)])
        self._names_every_flow = any(teller.names_every_flow for teller in tellers)
        self._needs_something = np.array([attack.needs != NOTHING for attack in self.attacks], bool)
        self._needs_answer = np.array([attack.needs == ANSWER for attack in self.attacks], bool)
        self._matched, self._labelled, self._attempted = (np.zeros(len(self.attacks), np.int64) for _ in range(3))
        self._overlaps: Counter[tuple[int, int]] = Counter()
        self.labels: Counter[str | None] = Counter()
        self._values = self._label_values()

    def check(self, names: Sequence[str], file: str) -> None:
        """Refuses flows that lack what labelling reads.

        Raises:
            InputError: It names the file and the columns.
        """
        needed = (*_READ, *(name for teller in self._tellers for name in teller.columns))
        absent = [name for name in dict.fromkeys(needed) if name not in names]
        if absent:
            raise InputError(f"{file}: has no column {', '.join(absent)}; give flows that pipelines.flows wrote")

    def label(self, flows: pa.RecordBatch) -> pa.RecordBatch:
        """The flows with `FIELDS` appended; columns that are called so already are replaced."""
        columns = FlowColumns.of(flows)
        winner = np.full(len(flows), -1, np.int64)
        side = np.full(len(flows), EITHER)
        for teller, first in zip(self._tellers, self._firsts, strict=False):
            for claims in teller.claims(columns):
                self._claim(claims.rows, claims.attacks + first, claims.sides, winner, side)
        attempted = self._is_attempted(flows, winner, side)
        taken = winner[winner >= 0]
        self._attempted += np.bincount(winner[attempted], minlength=len(self.attacks))
        self._labelled += np.bincount(taken, minlength=len(self.attacks))
        if self.settings.attempted != ATTACK:
            self._labelled -= np.bincount(winner[attempted], minlength=len(self.attacks))
        which = 2 * winner + attempted
        which[winner < 0] = 2 * len(self.attacks)
        values = [column.take(pa.array(which)) for column in self._values]
        for counted in pc.value_counts(values[0]).to_pylist():
            self.labels[counted["values"]] += counted["counts"]
        return _with(flows, values)

    def table(self) -> list[Matched]:
        """What became of each attack so far, in order of precedence."""
        unmatched = np.concatenate([[], *(teller.unmatched_events() for teller in self._tellers)])
        lost = np.zeros(len(self.attacks), np.int64)
        for (_, second), flows in self._overlaps.items():
            lost[second] += flows
        counts = (self._matched, self._labelled, self._attempted, lost, unmatched)
        return [Matched(attack, *(int(count[i]) for count in counts)) for i, attack in enumerate(self.attacks)]

    def overlaps(self) -> list[Overlap]:
        """Attacks that hold for the same flows, most flows first."""
        ordered = sorted(self._overlaps.items(), key=lambda one: (-one[1], one[0]))
        return [Overlap(self.attacks[one], self.attacks[other], flows) for (one, other), flows in ordered]

    def _claim(
        self, rows: np.ndarray, attacks: np.ndarray, sides: np.ndarray, winner: np.ndarray, side: np.ndarray
    ) -> None:
        """Gives rows that are free to the first attack that claims them, and counts the others."""
        self._matched += np.bincount(attacks, minlength=len(self.attacks))
        first = np.append(True, rows[1:] != rows[:-1]) if len(rows) else np.zeros(0, bool)
        first &= winner[rows] < 0
        winner[rows[first]] = attacks[first]
        side[rows[first]] = sides[first]
        pairs = np.stack([winner[rows[~first]], attacks[~first]], 1)
        for (one, other), flows in zip(*_counted(pairs), strict=True):
            self._overlaps[int(one), int(other)] += int(flows)

    def _is_attempted(self, flows: pa.RecordBatch, winner: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Flows of an attack that did not send what it needs."""
        fwd, rev = (
            flows[name].fill_null(0).to_numpy(False) > 0 for name in ("fwd_payload_octets", "rev_payload_octets")
        )
        known = winner >= 0
        attacker = np.where(side == EITHER, fwd | rev, np.where(side == FORWARD, fwd, rev))
        other = np.where(side == EITHER, fwd & rev, np.where(side == FORWARD, rev, fwd))
        if not len(self.attacks):
            return np.zeros(len(winner), bool)
        missing = ~attacker | (self._needs_answer[winner] & ~other)
        attempted: np.ndarray = known & self._needs_something[winner] & missing
        return attempted

    def _label_values(self) -> list[pa.Array]:
        """Label, category and source of each attack, then of its attempts; at the end those of flows nothing names."""
        labels: list[str | None] = []
        categories: list[str | None] = []
        sources: list[str | None] = []
        as_attempted = {LABEL: ATTEMPTED, AS_BENIGN: self.settings.benign}
        for attack in self.attacks:
            labels += [attack.name or None, as_attempted.get(self.settings.attempted, attack.name)]
            categories += [None if attack.is_benign else attack.category or None] * 2
            sources += [f"{attack.source} {attack.name}".rstrip()] * 2
        labels.append(None if self._names_every_flow else self.settings.benign)
        return [pa.array([*values, *[None] * (len(labels) - len(values))], pa.string())
                for values in (labels, categories, sources)]  # fmt: skip


def labelled_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of labelled flows."""
    names = {field.name for field in FIELDS}
    kept = [field for field in schema if field.name not in names]
    return pa.schema([*kept, *arrow_schema(FIELDS)], schema.metadata)


def _with(flows: pa.RecordBatch, values: list[pa.Array]) -> pa.RecordBatch:
    schema = labelled_schema(flows.schema)
    kept = [flows[field.name] for field in list(schema)[: -len(FIELDS)]]
    return pa.RecordBatch.from_arrays([*kept, *values], schema=schema)


def _counted(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(pairs):
        return pairs, np.zeros(0, np.int64)
    return np.unique(pairs, axis=0, return_counts=True)
