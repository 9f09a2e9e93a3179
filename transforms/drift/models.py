"""The model that is watched: its features, its classes, and what its data looked like."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transforms.model.folder import Model, look_at, read_model_folder
from transforms.model.reference import Binning, Reference
from transforms.records import InputError

REFERENCE = "reference.json"

MOST_KEPT = 4
"""Models that a process remembers: flows of the one before may still come."""


@dataclass(frozen=True)
class WatchedModel:
    """A model and its reference.

    Attributes:
        model: What its folder says.
        reference: What its data looked like.
    """

    model: Model
    reference: Reference

    @cached_property
    def binning(self) -> Binning:
        """The bins of the reference."""
        return Binning(self.reference)

    @property
    def features(self) -> tuple[str, ...]:
        """The features, in the order of the bins."""
        return tuple(self.reference.features)


def read_watched(folder: Path) -> WatchedModel:
    """Reads a model that flows can be compared with.

    Raises:
        InputError: The folder is damaged, or was made without a reference.
    """
    model = read_model_folder(folder)
    named = f"model {folder}: {REFERENCE}"
    if model.feature_set is None:
        raise InputError(f"model {folder}: is of a foreign table; flows cannot be compared with it")
    try:
        text = (folder / REFERENCE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{named}: is missing; train the model again, or switch off --drift_window_s") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{named}: cannot be read: {error}") from None
    reference = Reference.from_json(text, named)
    if tuple(reference.features) != model.features:
        raise InputError(f"{named}: its features are not the model's; train the model again")
    return WatchedModel(model, reference)


class WatchedModels:
    """The models that have stood in a folder, as long as they are asked for; picklable.

    Args:
        folder: Where the model is, and the next ones will be.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._known: dict[str, WatchedModel] = {}
        self._seen: object = None

    def __getstate__(self) -> dict[str, object]:
        """The folder alone: each worker reads for itself."""
        return {"folder": self.folder, "_known": {}, "_seen": None}

    def of(self, model_id: str) -> WatchedModel | None:
        """The model with this id; None where the folder has another, or one that cannot be read."""
        if model_id not in self._known:
            self.look()
        return self._known.get(model_id)

    def look(self) -> None:
        """Takes up what stands in the folder, if that has changed."""
        seen = look_at(self.folder)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            watched = read_watched(self.folder)
        except InputError:  # it is being replaced, or told where flows are scored; such flows are counted
            return
        self._known[watched.model.id] = watched
        while len(self._known) > MOST_KEPT:
            del self._known[next(iter(self._known))]
