"""What a packet costs between a queue and its flow, how that grows with shards, and what follows for a cluster.

    python benchmarks/scaling.py [--packets 1000000] [--folder DIR]

It measures the pure chain in processor time, without a runner: decoding blocks, splitting and packing them, folding
their parts, making columns of flows that ended. Each cost is measured by designs that differ in one thing alone: the
size of blocks, the number of shards, or how many blocks a bundle has. From these alone it predicts other numbers of
shards, measures them, too, and says how far off the prediction is; likewise with a second process beside it. What
happens once, as the first use of a shard, is measured apart: it is no part of what a packet costs.

Then it simulates skewed traffic (one elephant flow, a million mice) on clusters: packets go to shards by the project's
own hash, shards to cores as a runner gives out keys, and a cluster is as fast as its busiest core.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from against_other_tools import capture

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets  # noqa: E402
from transforms import avro  # noqa: E402
from transforms.arrivals import Arrival, pack, unpack  # noqa: E402
from transforms.flow_records import FinishedFlows, LateColumns  # noqa: E402
from transforms.settings import FlowSettings  # noqa: E402
from transforms.shard import split  # noqa: E402
from transforms.shard_state import Shard  # noqa: E402
from transforms.stream_line import StreamRules  # noqa: E402

SHARDS = (1, 4, 16, 64, 256)
FITTED = (1, 64)
"""Shards of the designs that costs come from; the others check them."""

BLOCK, SMALL_BLOCK = 4096, 512
BUNDLE, SMALL_BUNDLE = 16, 4
"""Blocks of a bundle."""

WARM_UP = 1 / 3
"""Part of the blocks that comes before anything is measured."""

REPEATS = 3
CORES = (1, 2, 4, 8, 16, 32, 64)
MICE, SEEDS = 1_000_000, 5
ELEPHANTS = (0.0, 0.1, 0.5)
"""Shares of all packets that one flow has."""


class Measured(NamedTuple):
    """What one run counted, and the seconds of processor time it took; without its warm-up, but for `first_s`."""

    packets: int = 0
    blocks: int = 0
    parts: int = 0
    takes: int = 0
    flows: int = 0
    batches: int = 0
    decode_s: float = 0.0
    split_s: float = 0.0
    fold_s: float = 0.0
    columns_s: float = 0.0
    first_s: float = 0.0


class Costs(NamedTuple):
    """Seconds of processor time for each of what is counted."""

    decode_packet: float
    decode_block: float
    split_packet: float
    split_part: float
    fold_packet: float
    fold_part: float
    fold_take: float
    columns_flow: float
    columns_batch: float

    def of(self, counted: Measured) -> tuple[float, float, float, float]:
        """What a run with these counts takes: decoding, splitting, folding, columns."""
        return (
            counted.packets * self.decode_packet + counted.blocks * self.decode_block,
            counted.packets * self.split_packet + counted.parts * self.split_part,
            counted.packets * self.fold_packet + counted.parts * self.fold_part + counted.takes * self.fold_take,
            counted.flows * self.columns_flow + counted.batches * self.columns_batch,
        )


def blocks_of(path: Path, most: int, size: int) -> list[bytes]:
    """The first packets of a capture in blocks of a size, as a queue has them."""
    blocks: list[bytes] = []
    for batch in read_packets(SensorInput("local", (str(path),)), ReadSettings(), ReadReport()):
        for first in range(0, len(batch.packets), size):
            packets = batch.packets[first : first + size]
            observed_ns = int(packets["time_ns"][-1])
            block = batch._replace(packets=packets, sequence=len(blocks), observed_ns=observed_ns)
            blocks.append(avro.encode_block(block))
        if len(blocks) * size >= most:
            break
    return blocks


def measure(blocks: Sequence[bytes], shards: int, bundle: int = BUNDLE) -> Measured:
    """The chain over all blocks, once."""
    settings = FlowSettings()
    late, columns = settings.columns(LateColumns), settings.columns()
    workers = [Shard(settings, late, StreamRules(), "local", number) for number in range(shards)]
    warm = int(len(blocks) * WARM_UP) // bundle * bundle
    clock, found = time.process_time, Measured()
    for first in range(0, len(blocks), bundle):
        times = [clock()]
        decoded = [avro.decode_block(octets) for octets in blocks[first : first + bundle]]
        times.append(clock())
        of_shards: list[list[Arrival]] = [[] for _ in range(shards)]
        for block in decoded:
            for number, part in enumerate(split(block.packets, shards)):
                of_shards[number].append(Arrival(block._replace(packets=part)))
        packed = [pack(arrivals) for arrivals in of_shards]
        times.append(clock())
        ended = [
            output
            for shard, octets in zip(workers, packed, strict=True)
            for output in shard.take(unpack(octets))
            if isinstance(output, FinishedFlows)
        ]
        times.append(clock())
        flows = len(columns.joined(ended)) if ended else 0
        times.append(clock())
        if first == 0:
            found = found._replace(first_s=times[3] - times[2])
        if first >= warm:
            counts = (sum(len(block.packets) for block in decoded), len(decoded), sum(map(len, of_shards)), shards)
            added = (*counts, flows, int(flows > 0), *np.diff(times))
            found = Measured(*np.add(found[:-1], added).tolist(), found.first_s)
    return found


def fastest(blocks: Sequence[bytes], shards: int, bundle: int = BUNDLE) -> Measured:
    """Several runs; of each part the one that was least disturbed."""
    runs = [measure(blocks, shards, bundle) for _ in range(REPEATS)]
    return runs[0]._replace(**{name: min(getattr(run, name) for run in runs) for name in Measured._fields[6:]})


def costs_of(one: Measured, many: Measured, small_bundles: Measured, small_blocks: Measured) -> Costs:
    """Costs, from designs that differ in one thing: shards, the size of bundles, the size of blocks."""
    decode = _solved([one, small_blocks], ("packets", "blocks"), "decode_s")
    split_cost = _solved([one, many], ("packets", "parts"), "split_s")
    fold = _solved([one, many, small_bundles], ("packets", "parts", "takes"), "fold_s")
    columns = _solved([many, small_bundles], ("flows", "batches"), "columns_s")
    return Costs(*decode, *split_cost, *fold, *columns)


def _solved(runs: Sequence[Measured], counts: Sequence[str], seconds: str) -> list[float]:
    """As many costs as there are designs; none is negative, whatever disturbed a run."""
    matrix = np.array([[getattr(run, name) for name in counts] for run in runs], float)
    scale = matrix.max(axis=0)
    cost = np.linalg.solve(matrix / scale, np.array([getattr(run, seconds) for run in runs]))
    return list(np.maximum(cost / scale, 0.0))


def report(costs: Costs, rows: dict[int, Measured]) -> None:
    """Prints what is predicted, what was measured, and how far that is apart."""
    print("shards  measured ns a packet: decode  split   fold  columns     all   predicted    off")
    for shards, row in rows.items():
        seconds = (row.decode_s, row.split_s, row.fold_s, row.columns_s)
        whole, told = sum(seconds), sum(costs.of(row))
        each = "  ".join(f"{value / row.packets * 1e9:6.0f}" for value in (*seconds, whole, told))
        fitted = "" if shards not in FITTED else "  (a design)"
        print(f"{shards:6}                        {each}   {told / whole - 1:+6.0%}{fitted}", flush=True)


def speed_up(shards: int, cores: int, elephant: float, seed: int) -> float:
    """How many times as fast as one core a cluster is, if shards lie on cores at random, as keys do."""
    random = np.random.default_rng(seed)
    load = np.bincount(random.integers(0, shards, MICE), minlength=shards) * (1 - elephant) / MICE
    load[random.integers(0, shards)] += elephant
    return 1 / float(np.bincount(random.integers(0, cores, shards), load, cores).max())


def main() -> None:
    """Measures, predicts, simulates, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "flowbeam" / "benchmarks")
    parser.add_argument("--shards", type=int, help=argparse.SUPPRESS)  # in a process beside the one that measures
    arguments = parser.parse_args()
    path = capture("2m", arguments.folder)
    blocks = blocks_of(path, arguments.packets, BLOCK)
    while arguments.shards:
        measure(blocks, arguments.shards)
    measure(blocks[: 2 * BUNDLE], 4)  # kernels are loaded
    rows = {shards: fastest(blocks, shards) for shards in SHARDS}
    one, many = (rows[shards] for shards in FITTED)
    small_blocks = fastest(blocks_of(path, arguments.packets, SMALL_BLOCK), 1, BUNDLE * BLOCK // SMALL_BLOCK)
    costs = costs_of(one, many, fastest(blocks, FITTED[1], SMALL_BUNDLE), small_blocks)
    for name, cost in costs._asdict().items():
        print(f"{name.replace('_', ', each '):22} {cost * 1e9:12,.0f} ns")
    print(f"first use of a shard   {rows[SHARDS[-1]].first_s / SHARDS[-1] * 1e9:12,.0f} ns, once")
    report(costs, rows)
    words = [sys.executable, __file__, f"--packets={arguments.packets}", f"--folder={arguments.folder}"]
    print("with a second process beside it:")
    with subprocess.Popen([*words, f"--shards={FITTED[1]}"]) as other:
        report(costs, {shards: fastest(blocks, shards) for shards in SHARDS})
        other.kill()
    reading = costs.decode_packet + costs.split_packet + costs.decode_block / BLOCK
    print("where each saturates, a core:")
    for shards in SHARDS:
        part = shards / BLOCK
        print(f"  reading, {shards:3} shards: {1 / (reading + costs.split_part * part):12,.0f} packets/s")
        folding = costs.fold_packet + part * (costs.fold_part + costs.fold_take / BUNDLE)
        print(f"  folding, {shards:3} shards: {1 / folding:12,.0f} packets/s")
    print(f"  columns:             {1 / costs.columns_flow:12,.0f} flows/s")
    print(f"  an elephant, which one core folds: {1 / costs.fold_packet:,.0f} packets/s")
    print("times as fast as one core (mean of", SEEDS, "seeds)")
    print("elephant  shards  " + "  ".join(f"{cores:5}" for cores in CORES) + "  cores")
    for elephant in ELEPHANTS:
        for shards in (8, 64, 256):
            means = [np.mean([speed_up(shards, cores, elephant, seed) for seed in range(SEEDS)]) for cores in CORES]
            print(f"{elephant:8.0%}  {shards:6}  " + "  ".join(f"{mean:5.1f}" for mean in means))


if __name__ == "__main__":
    main()
