"""What a running job is updated by: names of steps and of their state, the layout of what is in it, a state of then.

A change that another version's state cannot be read with needs an entry in CHANGELOG.md that says so. Then:
`PYTHONPATH=tests python -m tests.pipelines.test_update_interface` writes the new interface.
"""

import base64
import hashlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard
from flow_testing import packets

from sources.queue_order import QueueOrder
from sources.streaming.kafka_progress import PartitionProgress, PartitionReadingCoder
from sources.streaming.pubsub_progress import PullProgress, PullReadingCoder
from sources.streaming.reading_tracker import Reading
from sources.streaming.spool_progress import SpoolProgress, SpoolReadingCoder
from transforms import arrivals, table_layout
from transforms.arrivals import Arrival
from transforms.records import GAP_LOST, PACKET, Gap, PacketBatch, Stream
from transforms.rules import Rules
from transforms.settings import FlowSettings
from transforms.shard_drivers import Kept
from transforms.shard_state import Shard
from transforms.stream_line import StreamRules

TOP = Path(__file__).parents[2]
KNOWN = Path(__file__).with_name("update_interface.json")
ARGUMENTS = ("--runner=PrismRunner", "--streaming", "--output=parquet:flows")


def interface(folder: Path) -> dict[str, Any]:
    """As the code has it."""
    import apache_beam as beam
    from apache_beam.portability import common_urns

    from pipelines.endless import EndlessJob
    from pipelines.flows import parse_options, plan_of

    (folder / "spool").mkdir()
    plan = plan_of(parse_options([*ARGUMENTS, f"--input=spool:{folder}/spool"]))
    proto = EndlessJob(plan).pipeline().to_runner_api()
    steps: list[str] = []
    state: dict[str, Any] = {}
    for transform in proto.components.transforms.values():
        name = transform.unique_name.replace(str(folder), "FOLDER")
        if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
            steps.append(name)
            payload = beam.portability.api.beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
            kept = {key: spec.WhichOneof("spec") for key, spec in sorted(payload.state_specs.items())}
            if kept or payload.restriction_coder_id:
                state[name] = {"state": kept, "timers": sorted(payload.timer_family_specs)}
    snapshot, log = state_of_a_shard()
    return {
        "steps": sorted(steps),
        "state": state,
        "layout": {**layout_of_a_shard(snapshot, log), **layout_of_readings()},
        "kept": {"snapshot": _text(zstandard.compress(snapshot)), "log": _text(log)},
    }


SETTINGS = FlowSettings(Rules())
STREAM = Stream("north", 7)


def new_shard() -> Shard:
    """A shard that has seen nothing."""
    return Shard(SETTINGS, SETTINGS.columns(), StreamRules(), "north", 0)


def block(sequence: int, at_s: list[int]) -> Arrival:
    """A block of one flow's packets, one in each direction by turns."""
    made = packets(at_s=at_s, forward=[number % 2 == 0 for number in range(len(at_s))], payload=10)
    batch = PacketBatch(STREAM, sequence, int(made["time_ns"][-1]), made)
    return Arrival(batch, received_ns=batch.observed_ns + 5)


def state_of_a_shard() -> tuple[bytes, bytes]:
    """A snapshot with an open flow, a gap that was told, and a block that waits; a log with what it waits for."""
    shard = new_shard()
    told = Arrival(None, gaps=(Gap(Stream("north", 8), 2, 0, 3, GAP_LOST),))
    list(shard.take([block(0, [0, 1, 2]), block(2, [6, 7]), told]))
    shard.take_counts()
    return shard.to_bytes(), arrivals.pack([block(1, [3, 4, 5])])


def layout_of_a_shard(snapshot: bytes, log: bytes) -> dict[str, Any]:
    """What the octets of a shard's state are, piece by piece."""
    begin = 4 + int.from_bytes(snapshot[:4], "little")
    about = json.loads(snapshot[4:begin])
    table = snapshot[begin + about[2] :]
    version, length = struct.unpack_from("<HI", table, 8)
    header = json.loads(table[14 : 14 + length])
    rows = new_table_rows()
    return {
        "about": Kept(bytes(range(16)), 5, 6).to_bytes().hex(),
        "log": pa.decompress(log[8:], int.from_bytes(log[:8], "little"), "lz4", asbytes=True).hex(),
        "lines": about[:2],
        "table": {"magic": table[:8].decode(), "version": version, "meta": sorted(header["meta"])},
        "rows": {
            name: {"octets": header["arrays"][name][1], "names": _digest(rows[name])} for name in header["arrays"]
        },
    }


def new_table_rows() -> dict[str, np.dtype]:
    """The rows of a table's arrays."""
    table = SETTINGS.table(SETTINGS.columns(), "north")
    rows = {name: array.dtype for name, array in vars(table).items() if isinstance(array, np.ndarray)}
    return {"heads": table_layout.HEAD, "rows": rows["_rows"], "deadlines": rows["_deadlines"], "packets": PACKET}


def layout_of_readings() -> dict[str, str]:
    """How far a queue was read, as each of the readers has it kept."""
    order = QueueOrder(2, 3)
    order.arrived(block(0, [0]).batch, 5)
    kafka = PartitionReadingCoder().encode(Reading(PartitionProgress(9, order), True))
    spool = SpoolProgress(order)
    spool.place, spool.token = ("part", 4, 2), 11
    pull = PullProgress()
    pull.begin("token", 2)
    return {
        "kafka": kafka.decode("latin1"),
        "spool": SpoolReadingCoder().encode(Reading(spool, False)).decode("latin1"),
        "pubsub": PullReadingCoder().encode(Reading(pull, False)).decode("latin1"),
    }


def _digest(row: np.dtype) -> str:
    return hashlib.sha256(json.dumps(row.descr).encode()).hexdigest()[:16]


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def test_a_running_job_can_be_updated(tmp_path, monkeypatch):
    """What is known of steps, states and tables is what the code has."""
    monkeypatch.chdir(tmp_path)
    found = interface(tmp_path)
    known = json.loads(KNOWN.read_text(encoding="utf-8"))
    advice = "running jobs cannot be updated over this change: say so in CHANGELOG.md, then see this module's docstring"
    for part in ("steps", "state", "layout"):
        assert found[part] == known[part], advice


def test_a_state_of_then_is_understood():
    """A shard made again from the state that is kept here goes on as one that never stopped."""
    kept = json.loads(KNOWN.read_text(encoding="utf-8"))["kept"]
    again, whole = new_shard(), new_shard()
    again.restore(zstandard.decompress(base64.b64decode(kept["snapshot"])))
    ended = []
    for shard in (again, whole):
        if shard is whole:
            list(shard.take([block(0, [0, 1, 2]), block(2, [6, 7])]))
        list(shard.take(arrivals.unpack(base64.b64decode(kept["log"]))))
        flows = [flows for flows in shard.finish() if isinstance(flows, pa.RecordBatch)]
        ended.append(pa.Table.from_batches(flows))
    assert ended[0].column("fwd_packets").to_pylist() == [5]
    assert ended[0].equals(ended[1])


def test_no_step_is_named_after_a_line(tmp_path, monkeypatch):
    """An unlabelled lambda would be, and move with it."""
    monkeypatch.chdir(tmp_path)
    named = [step for step in interface(tmp_path)["steps"] if ".py:" in step and " at core.py:" not in step]
    assert named == []


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        KNOWN.write_text(json.dumps(interface(Path(name)), indent=2) + "\n", encoding="utf-8")
    sys.exit(0)
