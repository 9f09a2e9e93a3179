"""Inputs changed: windows of flows, by their end, against the model's reference; `compare_inputs` puts it on Beam."""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from transforms.drift import rows
from transforms.drift.compare import compare
from transforms.drift.models import WatchedModel

SIGNIFICANT = 0.01
"""A feature counts as changed below this adjusted p-value."""

MOST_OPEN = 256
"""Windows of endless input that are open at a time; the oldest are compared sooner where there are more."""

_HEAD = struct.Struct("<qqqB")
_ABOUT = struct.Struct("<?qqq")
_LENGTH = struct.Struct("<I")
_NEVER = -(1 << 63)


class InputsRule(NamedTuple):
    """How windows are made and when they alarm.

    Attributes:
        window_ns: Length of a window.
        lateness_ns: Of endless input, a window is compared when a flow was seen that ended so long after it.
        psi: Mean of the features' PSI from which on a window has changed.
        least_flows: Windows with fewer are not judged.
    """

    window_ns: int
    lateness_ns: int
    psi: float = 0.1
    least_flows: int = 200


class Part(NamedTuple):
    """Counts of flows of one window.

    Attributes:
        window: Its number: its begin by its length.
        newest_ns: The end of the flow that ended last.
        flows: How many flows.
        counts: As `Binning.counts`; `int64[width]`.
    """

    window: int
    newest_ns: int
    flows: int
    counts: np.ndarray

    def __add__(self, other: "Part") -> "Part":  # type: ignore[override]
        """Both together."""
        newest_ns = max(self.newest_ns, other.newest_ns)
        return Part(self.window, newest_ns, self.flows + other.flows, self.counts + other.counts)

    def to_bytes(self) -> bytes:
        """As few octets as the largest count allows."""
        counts = self.counts.astype(np.min_scalar_type(int(self.counts.max())))
        return _HEAD.pack(self.window, self.newest_ns, self.flows, counts.itemsize) + counts.tobytes()

    @classmethod
    def from_bytes(cls, octets: bytes) -> "Part":
        """What `to_bytes` gave."""
        window, newest_ns, flows, size = _HEAD.unpack_from(octets)
        return cls(window, newest_ns, flows, np.frombuffer(octets, f"u{size}", offset=_HEAD.size).astype(np.int64))


class Noticed(NamedTuple):
    """A row, and whether it is the first of an alarm.

    Attributes:
        row: A row of the output.
        crossed: The alarm begins here: the row before was none.
    """

    row: dict[str, Any]
    crossed: bool


class InputsMonitor:
    """The windows of one model's flows.

    Args:
        watched: The model.
        rule: How windows are made.
    """

    def __init__(self, watched: WatchedModel, rule: InputsRule) -> None:
        self._watched, self._rule = watched, rule
        self._windows: dict[int, Part] = {}
        self._changed = False
        self._closed_before = self._newest_ns = _NEVER

    def add(self, part: Part) -> int:
        """Takes counts; returns how many flows were late for their window, and are left out."""
        self._newest_ns = max(self._newest_ns, part.newest_ns)
        if part.window < self._closed_before:
            return part.flows
        known = self._windows.get(part.window)
        self._windows[part.window] = part if known is None else known + part
        return 0

    def close(self, everything: bool = False) -> Iterator[Noticed]:
        """Compares the windows that are over, in order.

        Args:
            everything: Nothing more will come.
        """
        over = (self._newest_ns - self._rule.lateness_ns) // self._rule.window_ns
        for window in sorted(self._windows):
            if everything or window < over or len(self._windows) > MOST_OPEN:
                self._closed_before = window + 1
                yield self._compared(self._windows.pop(window))

    def _compared(self, part: Part) -> Noticed:
        watched, rule = self._watched, self._rule
        window, _, flows, counts = part
        binning = watched.binning
        found = compare(binning.reference_counts, counts, binning.starts)
        names = (*watched.features, "score")
        histograms = (*watched.reference.features.values(), watched.reference.score)
        psi = float(found.psi[:-1].mean())
        enough = flows >= rule.least_flows
        changed = enough and psi >= rule.psi
        event = rows.INPUTS_CHANGED if changed else rows.INPUTS_COMPARED if enough else rows.INPUTS_TOO_FEW
        row = {
            "event": event,
            "model_id": watched.model.id,
            "window_start_ns": window * rule.window_ns,
            "window_end_ns": (window + 1) * rule.window_ns,
            "flows": flows,
            "psi": psi,
            "score_psi": float(found.psi[-1]),
            "level": psi / rule.psi,
            "features_changed": int((found.adjusted[:-1] < SIGNIFICANT).sum()),
            "features": [
                {
                    "feature": names[at],
                    "psi": float(found.psi[at]),
                    "p_value": float(found.p_values[at]),
                    "p_adjusted": float(found.adjusted[at]),
                    "missing_share": int(counts[binning.starts[at + 1] - 1]) / flows,
                    "usual_missing_share": histograms[at].missing_share,
                }
                for at in np.argsort(-found.psi, kind="stable").tolist()
            ],
        }
        crossed = changed and not self._changed
        if enough:
            self._changed = changed
        return Noticed(row, crossed)

    def to_bytes(self) -> bytes:
        """All that must be known to go on."""
        written = [_ABOUT.pack(self._changed, self._closed_before, self._newest_ns, len(self._windows))]
        for window in sorted(self._windows):
            part = self._windows[window].to_bytes()
            written += [_LENGTH.pack(len(part)), part]
        return b"".join(written)

    def restore(self, octets: bytes) -> None:
        """Goes on from what `to_bytes` gave."""
        self._changed, self._closed_before, self._newest_ns, windows = _ABOUT.unpack_from(octets)
        at = _ABOUT.size
        for _ in range(windows):
            (length,) = _LENGTH.unpack_from(octets, at)
            at += _LENGTH.size
            part = Part.from_bytes(octets[at : at + length])
            self._windows[part.window] = part
            at += length
