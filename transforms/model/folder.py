"""A model on disk: a folder with the forest, what it needs to know of flows, and where it came from.

    models/NAME/
        model.json       what the other files are, with their SHA-256; a folder without it is no model
        forest/          the forest, as YDF saves it
        reference.json   what the training data looked like, for drift
        report.html, metrics.json

It is written under a hidden name beside its place and renamed whole. Readers check every file before they use any.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from transforms.features import sets
from transforms.records import InputError

FORMAT = 1
"""Version of `model.json`."""

DESCRIPTION = "model.json"
FOREST = "forest"

TASKS = ("binary", "multiclass")

_KINDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "name": str,
    "created": str,
    "flowbeam": str,
    "task": str,
    "feature_set": (str, type(None)),
    "features": list,
    "classes": list,
    "benign": str,
    "threshold": (int, float),
    "training": dict,
    "metrics": dict,
    "history": list,
    "files": dict,
}
"""The keys of `model.json` beside `format`, and what each must be."""


class Model(NamedTuple):
    """What `model.json` says.

    Attributes:
        name: The model's name; its folder's, unless that was renamed.
        created: When it was trained, ISO 8601.
        flowbeam: The version that trained it.
        task: `binary` or `multiclass`.
        feature_set: The feature set that the features belong to, `cic@1`; None for columns of a foreign table.
        features: Columns that the forest needs, by their published names, in the order of their set.
        classes: Names of the classes, in the order of the forest's probabilities.
        benign: The class that is no alert.
        threshold: Scores from here on are alerts.
        training: Where it came from: fingerprint of the data, rows, split, files, seed.
        metrics: How good it was.
        history: What it was before: one entry for each time that it was trained on.
        id: `NAME-` and 12 hexadecimal digits of the hash of all files; `write_model_folder` fills it in.
        files: SHA-256 of each file by its path in the folder; filled in likewise.
    """

    name: str
    created: str
    flowbeam: str
    task: str
    feature_set: str | None
    features: tuple[str, ...]
    classes: tuple[str, ...]
    benign: str
    threshold: float
    training: dict[str, Any]
    metrics: dict[str, Any]
    history: tuple[Any, ...] = ()
    id: str = ""
    files: dict[str, str] = {}  # noqa: RUF012 -- a default that nobody changes

    def to_json(self) -> str:
        """The text of `model.json`."""
        return json.dumps({"format": FORMAT, **self._asdict()}, indent=2, ensure_ascii=False) + "\n"


def write_model_folder(folder: Path, model: Model, write_files: Callable[[Path], None]) -> Model:
    """Makes a model folder, or replaces one; readers see the old one or the new one, never a part.

    Args:
        folder: Its place; folders above are made.
        model: What it is, without id and files.
        write_files: Writes the files, `forest/` among them, into the folder that it is given.

    Returns:
        The model with its id and files.

    Raises:
        InputError: The place is taken by something that is no model, or cannot be written.
    """
    check_place(folder)
    place = folder.resolve()
    hidden = place.parent / f".{place.name}.{secrets.token_hex(4)}"
    try:
        hidden.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"model {folder}: cannot be written: {error.strerror}") from error
    try:
        write_files(hidden)
        files = {path.relative_to(hidden).as_posix(): _sha256(path) for path in _files_in(hidden)}
        written = model._replace(id=f"{model.name}-{_together(files)[:12]}", files=files)
        (hidden / DESCRIPTION).write_text(written.to_json(), encoding="utf-8")
        for path in (*_files_in(hidden), *(path for path in hidden.rglob("*") if path.is_dir()), hidden):
            _to_disk(path)
        _move(hidden, place)
    except OSError as error:
        raise InputError(f"model {folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return written


def check_place(folder: Path) -> None:
    """Looks whether a model may stand there, before it is made.

    Raises:
        InputError: Something else does.
    """
    if folder.exists() and not (folder / DESCRIPTION).is_file():
        raise InputError(f"model {folder}: is there already and is no model; name another folder")


def read_model_folder(folder: Path) -> Model:
    """Reads and checks a model folder: each file is there and as it was written, the features are those of the set.

    Raises:
        InputError: It cannot be used; the line names the folder and the file or setting.
    """
    model = _parse(folder, _description(folder))
    for name, expected in model.files.items():
        path = folder / name
        try:
            found = _sha256(path)
        except FileNotFoundError:
            raise InputError(f"model {folder}: {name} is missing; copy the whole folder again") from None
        except OSError as error:
            raise InputError(f"model {folder}: {name} cannot be read: {error.strerror}") from None
        if found != expected:
            raise InputError(f"model {folder}: {name} is damaged or half written; copy the whole folder again")
    if model.id.rpartition("-")[2] != _together(model.files)[:12]:
        raise InputError(f"model {folder}: its id {model.id} is not that of its files; train it again")
    return model


def look_at(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Something that differs once any file of the folder has changed, or another folder stands in its place."""
    try:
        paths = [folder, *sorted(folder.rglob("*"))]
        stats = [(str(path), path.stat()) for path in paths]
    except OSError:  # it is being replaced; the next look shows more
        return ()
    return tuple((path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def _description(folder: Path) -> Any:
    try:
        text = (folder / DESCRIPTION).read_text(encoding="utf-8")
    except FileNotFoundError:
        what = f"has no {DESCRIPTION}" if folder.is_dir() else "there is no such folder"
        raise InputError(f"model {folder}: {what}; name the folder of a model") from None
    except NotADirectoryError:
        raise InputError(f"model {folder}: is no folder; name the folder of a model") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"model {folder}: {DESCRIPTION} cannot be read: {error}") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(
            f"model {folder}: {DESCRIPTION} is damaged or half written; copy the whole folder again"
        ) from None


def _parse(folder: Path, said: Any) -> Model:
    def refuse(what: str) -> InputError:
        return InputError(f"model {folder}: {DESCRIPTION}: {what}")

    if not isinstance(said, dict) or "format" not in said:
        raise refuse("is no description of a model; name the folder of a model")
    if said["format"] != FORMAT:
        raise refuse(
            f"format {said['format']!r} is not {FORMAT}, the one that this version reads; train the model again"
        )
    for key, kind in _KINDS.items():
        if not isinstance(said.get(key, ...), kind) or isinstance(said[key], bool):
            raise refuse(f"{key} is missing or wrong; copy the whole folder again")
    for key in ("features", "classes"):
        names = said[key]
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise refuse(f"{key} must be names, each once")
    if said["task"] not in TASKS:
        raise refuse(f"task {said['task']!r} is none of {', '.join(TASKS)}")
    if len(said["classes"]) < 2 or (said["task"] == "binary" and len(said["classes"]) != 2):
        raise refuse(f"{len(said['classes'])} classes do not make a {said['task']} model")
    if said["benign"] not in said["classes"]:
        raise refuse(f"benign {said['benign']!r} is none of the classes")
    if not 0 <= said["threshold"] <= 1:
        raise refuse(f"threshold {said['threshold']} is no probability")
    for name, digest in said["files"].items():
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or not re.fullmatch("[0-9a-f]{64}", str(digest)):
            raise refuse(f"files: {name!r} is no file of the folder with its SHA-256")
    if not any(name.startswith(f"{FOREST}/") for name in said["files"]):
        raise refuse(f"files: there is none in {FOREST}/")
    _check_features(said["feature_set"], said["features"], refuse)
    listed = {key: tuple(said[key]) for key in ("features", "classes", "history")}
    return Model(**{key: said[key] for key in _KINDS} | listed)


def _check_features(feature_set: str | None, features: list[str], refuse: Callable[[str], InputError]) -> None:
    if feature_set is None:
        return
    try:
        known = [column.name for column in sets.get(feature_set).columns]
    except InputError as error:
        raise refuse(f"feature_set: {error}") from None
    unknown = [name for name in features if name not in known]
    if unknown:
        raise refuse(f"features: {feature_set} has no {sets.some(unknown)}; train the model again")
    if sorted(features, key=known.index) != features:
        raise refuse(f"features: they are not in the order of {feature_set}; train the model again")


def _files_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _together(files: dict[str, str]) -> str:
    lines = (f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(hidden: Path, place: Path) -> None:
    """Puts the folder in its place; the one that stood there goes first, and comes back if the new one cannot."""
    old = hidden.with_name(f"{hidden.name}.old")
    if not place.exists():
        hidden.rename(place)
        return
    place.rename(old)
    try:
        hidden.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old)
