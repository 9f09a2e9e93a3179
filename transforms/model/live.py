"""The model that a job scores with: opened once, and opened again when its folder has changed."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from apache_beam.metrics import Metrics

from transforms.features import sets
from transforms.model.explain import Explainer
from transforms.model.folder import Model, look_at, read_model_folder
from transforms.model.forest import Forest, open_forest
from transforms.model.inputs import canonical_needed
from transforms.records import InputError

LOOK_EVERY_S = 1.0
"""A folder is looked at so often, between two batches."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class ScoreSettings:
    """How flows are scored.

    Attributes:
        folder: Folder of the model, or a link to it; it is looked at again while the job runs.
        explain: How many features an alert is explained by; 0 for none.
        threshold: Scores from here on are alerts; None for the model's own.
    """

    folder: str
    explain: int = 0
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.explain < 0:
            raise InputError(f"--explain: {self.explain}; give 0 or more")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"--alert_threshold: {self.threshold:g}; give a probability, from 0 to 1")

    def model(self) -> Model:
        """What the folder's `model.json` says, once all of its files were checked.

        Raises:
            InputError: The folder is no whole model, or one that cannot score flows.
        """
        model = read_model_folder(Path(self.folder))
        feature_set_of(model)
        return model

    def open(self) -> "Scorer":
        """Opens the model; steps and threads of a process share what is opened, until the folder changes.

        Raises:
            InputError: As above, or YDF cannot use it, or its scores cannot be explained.
        """
        look = look_at(Path(self.folder))
        with _opening:
            opened = _Opened(self.folder, self.explain > 0, look)
            if not look or opened not in _shared:
                forest = open_forest(Path(self.folder))
                feature_set_of(forest.model)
                scorer = Scorer(forest, Explainer(forest.model, forest.trees) if self.explain else None)
                _shared.clear()
                _shared[opened] = scorer
            return _shared[opened]


class Scorer(NamedTuple):
    """What a batch of flows is scored with.

    Attributes:
        forest: The forest.
        explainer: What says why; None where nobody asked.
    """

    forest: Forest
    explainer: Explainer | None


class _Opened(NamedTuple):
    """What the shared scorer was made of: a folder as it looked, with or without explanations."""

    folder: str
    explained: bool
    look: tuple[object, ...]


_shared: dict[_Opened, Scorer] = {}
_opening = threading.Lock()


def feature_set_of(model: Model) -> str:
    """The feature set that flows need so that the model can score them.

    Raises:
        InputError: The model has none.
    """
    if model.feature_set is None:
        raise InputError(
            f"model {model.name}: was trained on columns of a foreign table, not on a feature set, and cannot score"
            " flows; train it with --features"
        )
    return model.feature_set


class LiveModel:
    """What to score the next batch with; threads may share it.

    A folder that changed is opened between two batches. Until it is whole, and if it is of no use for these flows, the
    model that there was stays.

    Args:
        settings: Which folder.
        clock: Seconds that never go back.

    Raises:
        InputError: There is no model to begin with.
    """

    def __init__(self, settings: ScoreSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._look = look_at(Path(settings.folder))
        self._scorer = settings.open()
        self._next_look_s = clock() + LOOK_EVERY_S
        self._told = ""
        self._looking = threading.Lock()
        self._taken_up = Metrics.counter("score", "models_taken_up")
        self._refused = Metrics.counter("score", "models_refused")

    def scorer(self, columns: Collection[str]) -> Scorer:
        """What to score a batch of flows with these columns with."""
        if self._clock() >= self._next_look_s and self._looking.acquire(blocking=False):
            try:
                self._look_again(columns)
            finally:
                self._next_look_s = self._clock() + LOOK_EVERY_S
                self._looking.release()
        return self._scorer

    def _look_again(self, columns: Collection[str]) -> None:
        look = look_at(Path(self._settings.folder))
        if look == self._look:
            return
        self._look = look
        try:
            scorer = self._settings.open()
            _check_columns(scorer.forest.model, columns)
        except InputError as error:
            self._keep(str(error))
            return
        self._told = ""
        old, new = self._scorer.forest.model, scorer.forest.model
        if new != old:
            _log.info("model %s takes the place of %s", new.id, old.id)
            self._scorer = scorer
            self._taken_up.inc()

    def _keep(self, reason: str) -> None:
        """Tells once why the old model stays, and not again while the same file is being copied."""
        self._refused.inc()
        if reason != self._told:
            self._told = reason
            _log.warning("%s; flows are scored by %s as before", reason, self._scorer.forest.model.id)


def _check_columns(model: Model, columns: Collection[str]) -> None:
    feature_set = feature_set_of(model)
    absent = [name for name in canonical_needed(feature_set, model.features) if name not in columns]
    if absent:
        raise InputError(
            f"model {model.id}: needs columns of {feature_set} that the flows of this job lack: {sets.some(absent)};"
            " start the job again to use it"
        )
