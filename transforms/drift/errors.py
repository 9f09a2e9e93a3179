"""Model decayed: labelled flows of one model, whenever their labels come; `judge_answers` puts it on Beam."""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from transforms.drift import rows
from transforms.drift.decay import JUDGED, DecayRule, Sum, follow, in_order

KEPT = 16_384
"""Labelled flows within which the order of their ends is kept, whatever the order in which their labels came."""

REPORTED = 1000
"""Labels that make a row."""

RECENT = 200
"""Labelled flows that the row of an alarm is about."""

_ABOUT = struct.Struct("<q?q?qqqqqI")
_NEVER = -(1 << 63)


class _Since(NamedTuple):
    """Labels that no row is about yet.

    Attributes:
        flows: How many.
        wrong: Wrong answers among them.
        first_ns: The end of the flow that ended first.
        last_ns: Of the one that ended last.
    """

    flows: int = 0
    wrong: int = 0
    first_ns: int = -_NEVER - 1
    last_ns: int = _NEVER


class ErrorsMonitor:
    """The labelled flows of one model.

    The test goes through flows in the order of their ends: the last `KEPT` of them are kept, and it is made again over
    them when a label comes for one in between. A flow that ended before all these counts where they begin.

    Args:
        model_id: The model.
        test: What is tested.
    """

    def __init__(self, model_id: str, test: DecayRule) -> None:
        self._model_id, self._test = model_id, test
        self._before = Sum()  # where the test stood before the flows that are kept
        self._folded_ns = _NEVER
        self._kept = np.zeros(0, JUDGED)
        self._since = _Since()
        self._told_decayed = False
        self._told_ns = _NEVER

    def add(self, judged: np.ndarray) -> Iterator[dict[str, Any]]:
        """Takes labelled flows, `JUDGED[n]`; gives rows. A flow that is kept already is the same flow again."""
        judged = in_order(judged[~np.isin(_ids(judged), _ids(self._kept))])
        while len(judged):
            taken, judged = np.split(judged, [REPORTED - self._since.flows])
            ends_ns = taken["end_ns"]
            flows, wrong, first_ns, last_ns = self._since
            self._since = _Since(
                flows + len(taken),
                wrong + int(taken["wrong"].sum()),
                min(first_ns, int(ends_ns.min())),
                max(last_ns, int(ends_ns.max())),
            )
            taken["end_ns"] = np.maximum(ends_ns, self._folded_ns)
            self._kept = in_order(np.concatenate([self._kept, taken]))
            yield from self._tested()
            if self._since.flows == REPORTED:
                yield from self.report()

    def report(self) -> Iterator[dict[str, Any]]:
        """A row about the labels that no row is about yet, if there are any."""
        flows, wrong, first_ns, last_ns = self._since
        if flows:
            self._since = _Since()
            standing, _ = follow(self._kept["wrong"], self._test, self._before)
            yield self._row(rows.ANSWERS_COMPARED, first_ns, last_ns, flows, wrong, standing.value)

    def _tested(self) -> Iterator[dict[str, Any]]:
        standing, changes = follow(self._kept["wrong"], self._test, self._before)
        ends_ns = self._kept["end_ns"]
        news = [(place, decayed) for place, decayed in changes if ends_ns[place] > self._told_ns]
        if standing.decayed != self._told_decayed and (not news or news[-1][1] != standing.decayed):
            news.append((len(self._kept) - 1, standing.decayed))  # labels of older flows have changed what was told
        for place, decayed in news:
            if decayed == self._told_decayed:
                continue
            recent = self._kept[max(0, place + 1 - RECENT) : place + 1]
            self._told_decayed, self._told_ns = decayed, int(ends_ns[place])
            event = rows.MODEL_DECAYED if decayed else rows.MODEL_RECOVERED
            yield self._row(
                event,
                int(recent["end_ns"][0]),
                self._told_ns,
                len(recent),
                int(recent["wrong"].sum()),
                self._test.limit if decayed else 0,
            )
        if len(self._kept) > KEPT:
            folded, self._kept = np.split(self._kept, [len(self._kept) - KEPT // 2])
            self._before, _ = follow(folded["wrong"], self._test, self._before)
            self._folded_ns = int(folded["end_ns"][-1])

    def _row(self, event: str, first_ns: int, last_ns: int, flows: int, wrong: int, value: int) -> dict[str, Any]:
        return {
            "event": event,
            "model_id": self._model_id,
            "window_start_ns": first_ns,
            "window_end_ns": last_ns,
            "flows": flows,
            "wrong": wrong,
            "error_rate": wrong / flows,
            "usual_error_rate": self._test.usual,
            "level": value / self._test.limit,
        }

    def to_bytes(self) -> bytes:
        """All that must be known to go on."""
        about = _ABOUT.pack(
            *self._before, self._folded_ns, self._told_decayed, self._told_ns, *self._since, len(self._kept)
        )
        return about + self._kept.tobytes()

    def restore(self, octets: bytes) -> None:
        """Goes on from what `to_bytes` gave."""
        value, decayed, self._folded_ns, self._told_decayed, self._told_ns, *since, kept = _ABOUT.unpack_from(octets)
        self._before, self._since = Sum(value, decayed), _Since(*since)
        self._kept = np.frombuffer(octets, JUDGED, kept, _ABOUT.size).copy()


def _ids(judged: np.ndarray) -> np.ndarray:
    """The ids, to be compared whole: `S16[n]`."""
    halves = np.stack([judged["id_high"], judged["id_low"]], axis=-1)
    return halves.view("S16").reshape(-1)
