"""Blocks that a server did not take, in files beside the rejects until `python -m pipelines.resend` sends them.

    unsent/elasticsearch-5f0c….arrow    Arrow IPC: the records, with the output's URL in the metadata of the schema

A file appears whole. Its name is made of output and records, so a repeated bundle replaces its own.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from sinks import places
from sinks.outputs import SinkContext, SinkUrl
from transforms.records import InputError

_OUTPUT, _FEATURES, _JOB = b"flowbeam.output", b"flowbeam.features", b"flowbeam.job"


class Block(NamedTuple):
    """A block that waits.

    Attributes:
        path: Its file.
        output: The `--output` it is for.
        job: Name of the job that made it.
        feature_sets: Those of that job.
        flows: The records.
    """

    path: Path
    output: str
    job: str
    feature_sets: tuple[str, ...]
    flows: pa.RecordBatch


def write(folder: Path, url: SinkUrl, context: SinkContext, flows: pa.RecordBatch) -> Path:
    """Writes a block to a file of `folder`, which is made if it is missing; it outlives the machine's end.

    Raises:
        InputError: It cannot be written.
    """
    features = ",".join(context.feature_sets)
    about = {_OUTPUT: url.text.encode(), _FEATURES: features.encode(), _JOB: context.job.encode()}
    known = {**(context.schema.metadata or {}), **(flows.schema.metadata or {})}
    schema = flows.schema.with_metadata({**known, **about})
    digest = hashlib.blake2b(url.text.encode(), digest_size=16)
    is_flows = "flow_id" in flows.schema.names
    digest.update((flows.select(["flow_id", "record_number"]) if is_flows else flows).serialize())
    path = folder / f"{url.module}-{digest.hexdigest()}.arrow"
    hidden = places.partial(path, context.job)
    with places.one_line("unsent", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with open(hidden, "wb") as file:
                with pa.ipc.new_file(file, schema, options=options) as writer:
                    writer.write_batch(flows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(hidden, path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
    return path


def records_of(folder: Path, job: str) -> int:
    """How many records of a job wait in the folder."""
    return sum(len(block.flows) for block in blocks(folder) if block.job == job)


def blocks(folder: Path) -> Iterator[Block]:
    """The blocks that wait in a folder, those that came first before the others.

    Raises:
        InputError: A file is none of ours, or damaged.
    """
    times = []
    for path in folder.glob("*.arrow"):
        times.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(times):
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                about = reader.schema.metadata or {}
                flows = reader.get_batch(0)
                flows.validate(full=True)
        except FileNotFoundError:  # sent by another process in the meantime
            continue
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: is damaged: {error}; move it elsewhere to send the others") from error
        if _OUTPUT not in about:
            raise InputError(f"{path}: holds no unsent flows; move it elsewhere to send the others")
        features = tuple(filter(None, about[_FEATURES].decode().split(",")))
        yield Block(path, about[_OUTPUT].decode(), about[_JOB].decode(), features, flows)
