"""Many small Parquet files of flows become few large ones, while others read the folder and a job writes to it.

A folder of one hour is made anew beside the old one, under a hidden name: the merged files, and hard links to those
that are large enough. Then the two change places in one step (renameat2, RENAME_EXCHANGE): who lists the folder sees
the old files or the new ones, each record once. What a job added meanwhile is moved over, and the old files stay as
long as somebody may still be listing them. A query that had listed them and opens one too late fails, and is right when
asked again. Where a file system cannot exchange folders or link files, a merged file appears first and the old ones go
after it: for that moment their records are there twice.

A plan in the hidden folder says how far it is. What was left by a compaction that was killed is finished, or undone, by
the next.
"""

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sinks import places
from sinks.flow_files import INTERIM, FileWriter
from transforms.records import InputError

FILE_ROWS = 131_072
"""Records of a file, at most; one of more than half as many is large enough. They take about 2 KB each in memory."""

LISTING_S = 0.5
"""So long old files stay in a folder that has lost its name: who opened it before has listed it by then."""

_PLAN, _FRESH = "plan.json", "fresh"
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.EMLINK}


class Compacted(NamedTuple):
    """What was done.

    Attributes:
        merged: Files that are there no more.
        made: Files that are there instead.
        repeated: Records that were there twice.
    """

    merged: int
    made: int
    repeated: int


def compact(folder: Path, file_rows: int = FILE_ROWS) -> Compacted:
    """Merges small files of each hour, final and interim records apart.

    Of records of one flow that are merged the one with the highest number stays; of interim records all numbers do.

    Args:
        folder: Of an output `parquet:DIR`.
        file_rows: Records of a file, at most.

    Raises:
        InputError: There is no such folder, a file cannot be read or written, or another compaction is at work.
    """
    named = f"parquet:{folder}"
    if not folder.is_dir():
        raise InputError(f"{named}: there is no such folder; name that of an output parquet:DIR")
    done = Compacted(0, 0, 0)
    with places.one_line(named, folder), _locked(named, folder):
        for left in sorted(folder.glob(f"{_prefix(folder)}*")):
            _recover(folder, left)
        for hour in sorted([*folder.glob("hour=*"), *folder.glob(f"{INTERIM}/hour=*")]):
            one = _compact_hour(folder, hour, file_rows)
            done = Compacted(*map(sum, zip(done, one, strict=True)))
    return done


@contextmanager
def _locked(named: str, folder: Path) -> Iterator[None]:
    """Only one compaction works on a folder."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{named}: another compaction is at work there; wait for it") from None
    finally:
        os.close(directory)


def _compact_hour(folder: Path, hour: Path, file_rows: int) -> Compacted:
    groups = _groups(hour, file_rows)
    if not groups:
        return Compacted(0, 0, 0)
    beside = folder / f"{_prefix(folder)}{secrets.token_hex(8)}"
    fresh = beside / _FRESH
    fresh.mkdir(parents=True)
    try:
        inputs, made, repeated = [], [], 0
        for group in groups:
            merged = _merge(group, fresh, interim=hour.parent.name == INTERIM)
            if merged is not None:
                inputs += [file.name for file in group]
                made.append(merged[0])
                repeated += merged[1]
        if made:
            exchanged = _link_others(hour, fresh, set(inputs))
            inode = fresh.stat().st_ino if exchanged else None
            _write_plan(beside, hour.relative_to(folder), inputs, made, inode)
            if not (exchanged and _exchange(fresh, hour)):
                _write_plan(beside, hour.relative_to(folder), inputs, made, None)
                _publish(fresh, hour, made)
            _finish(beside, hour, inputs, made)
    except BaseException:
        if not (beside / _PLAN).exists():
            shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(beside)
    return Compacted(len(inputs), len(made), repeated)


def _groups(hour: Path, file_rows: int) -> list[list[Path]]:
    """Small files that become one, neighbours in time: two or more of one schema."""
    groups: dict[bytes, list[list[Path]]] = {}
    sizes: dict[bytes, int] = {}
    for file in sorted(hour.glob("*.parquet")):
        try:
            with _opened(file) as opened:
                rows, schema = opened.metadata.num_rows, opened.schema_arrow
        except FileNotFoundError:  # somebody removed it
            continue
        if rows > file_rows // 2:
            continue
        kind = schema.serialize().to_pybytes()
        if kind not in groups or sizes[kind] + rows > file_rows:
            groups.setdefault(kind, []).append([])
            sizes[kind] = 0
        groups[kind][-1].append(file)
        sizes[kind] += rows
    return [group for several in groups.values() for group in several if len(group) > 1]


def _merge(group: list[Path], fresh: Path, interim: bool) -> tuple[str, int] | None:
    """Writes one file of several; its name and how many records were there twice. None where they hold other hours."""
    batches = [table.combine_chunks().to_batches()[0] for table in map(_read, group) if len(table)]
    repeated = 0
    if batches:
        stays = _last_of_each(batches, interim)
        repeated = int(len(stays) - stays.sum())
        if repeated:
            ends = np.cumsum([len(batch) for batch in batches])[:-1]
            batches = [batch.filter(pa.array(mask)) for batch, mask in zip(batches, np.split(stays, ends), strict=True)]
            batches = [batch for batch in batches if len(batch)]
    written = list(FileWriter(fresh).write(batches)) if batches else []
    if len(written) != 1 or written[0].name.parent.name != group[0].parent.name:
        for file in written:
            file.hidden.unlink()
        return None
    name = written[0].name.name
    os.replace(written[0].hidden, fresh / name)
    _sync(fresh / name)
    return name, repeated


def _read(file: Path) -> pa.Table:
    with _opened(file) as opened:
        return opened.read()


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except pa.ArrowException as error:
        raise InputError(f"{file}: cannot be read: {str(error).partition(chr(10))[0]}; move it away") from error


def _last_of_each(batches: list[pa.RecordBatch], interim: bool) -> np.ndarray:
    """Which rows stay: of each flow the record with the highest number, of interim records one of each number."""
    number = np.concatenate([batch["record_number"].to_numpy() for batch in batches])
    ids = np.concatenate([_id_halves(batch["flow_id"]) for batch in batches])
    order = np.lexsort((number, ids["low"], ids["high"]))
    same = ids[order][1:] == ids[order][:-1]
    if interim:
        same &= number[order][1:] == number[order][:-1]
    stays = np.ones(len(number), bool)
    stays[order[:-1][same]] = False
    return stays


def _id_halves(ids: pa.FixedSizeBinaryArray) -> np.ndarray:
    return np.frombuffer(ids.buffers()[1], [("high", "u8"), ("low", "u8")])[ids.offset : ids.offset + len(ids)]


def _link_others(hour: Path, fresh: Path, inputs: set[str]) -> bool:
    """Makes the fresh folder as the other is, with links to what is not merged; False where that cannot be."""
    try:
        status = hour.stat()
        os.chmod(fresh, status.st_mode & 0o7777)
        os.chown(fresh, status.st_uid, status.st_gid)
        for name in os.listdir(hour):
            if name not in inputs and not (fresh / name).exists():
                os.link(hour / name, fresh / name)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _exchange(fresh: Path, hour: Path) -> bool:
    """Lets two folders change places at once; False where the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(fresh), _AT_FDCWD, os.fsencode(hour), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        raise OSError(number, os.strerror(number))
    _sync(hour.parent)
    return True


def _publish(fresh: Path, hour: Path, made: list[str]) -> None:
    """Moves the merged files to where they belong, beside those they were made of."""
    for name in made:
        os.replace(fresh / name, hour / name)
    _sync(hour)


def _finish(beside: Path, hour: Path, inputs: list[str], made: list[str]) -> None:
    """Removes what was merged, wherever it is now, and moves over what a job added to the old folder."""
    old = beside / _FRESH
    _move_over(old, hour, inputs)
    time.sleep(LISTING_S)
    for name in inputs:
        (old / name).unlink(missing_ok=True)
        if name not in made:
            (hour / name).unlink(missing_ok=True)
    while old.exists():
        _move_over(old, hour, ())
        try:
            old.rmdir()
        except OSError as error:  # a job was just about to add a file
            if error.errno != errno.ENOTEMPTY:
                raise


def _move_over(old: Path, hour: Path, inputs: Collection[str]) -> None:
    """Gives the folder what it lacks of the other, but for `inputs`; a link to what it has goes."""
    for name in os.listdir(old) if old.exists() else ():
        if name in inputs:
            continue
        if (hour / name).exists() and os.path.samefile(old / name, hour / name):
            if not inputs:
                (old / name).unlink()
        else:
            os.replace(old / name, hour / name)


def _recover(folder: Path, beside: Path) -> None:
    """Finishes what a killed compaction had made visible; removes what it had not."""
    plan_file = beside / _PLAN
    if plan_file.exists():
        plan = json.loads(plan_file.read_text(encoding="utf-8"))
        hour, inputs, made = folder / plan["hour"], plan["inputs"], plan["made"]
        if plan["inode"] is None:
            missing = [name for name in made if (beside / _FRESH / name).exists()]
            _publish(beside / _FRESH, hour, missing)
            _finish(beside, hour, inputs, made)
        elif hour.stat().st_ino == plan["inode"]:
            _finish(beside, hour, inputs, made)
    shutil.rmtree(beside)


def _write_plan(beside: Path, hour: Path, inputs: list[str], made: list[str], inode: int | None) -> None:
    """Writes down what is about to happen; `inode` is the fresh folder's, if it is to take the other's place."""
    _sync(beside / _FRESH)
    hidden = beside / f"{_PLAN}.part"
    hidden.write_text(json.dumps({"hour": str(hour), "inputs": inputs, "made": made, "inode": inode}), encoding="utf-8")
    _sync(hidden)
    os.replace(hidden, beside / _PLAN)
    _sync(beside)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _prefix(folder: Path) -> str:
    return f".{folder.name}.compact-"
