"""What a packet costs between a queue and its flow, how that grows with shards, and what follows for a cluster.

    python benchmarks/scaling.py [--packets 1000000] [--folder DIR]

It measures the pure chain, without a runner: decoding a block, splitting it, packing and unpacking the parts, folding
them, on 1 and on 2 processes at a time, with 1 to 256 shards. From that it fits

    seconds of CPU = packets * of_a_packet + parts * of_a_part,    parts = blocks * shards

and says how well it fits. Then it simulates skewed traffic (one elephant flow, a million mice) on clusters: packets
go to shards by the project's own hash, shards to cores as a runner gives out keys, and a cluster is as fast as its
busiest core. What no core can help with is said, too: a flow is folded by one.
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
BUNDLE_BLOCKS = 16
CORES = (1, 2, 4, 8, 16, 32, 64)
MICE, SEEDS = 1_000_000, 5
ELEPHANTS = (0.0, 0.1, 0.5)
"""Shares of all packets that one flow has."""


class Measured(NamedTuple):
    """What one run took, in seconds of CPU."""

    shards: int
    packets: int
    parts: int
    split_s: float
    fold_s: float
    columns_s: float
    flows: int


def blocks_of(path: Path, most: int) -> list[bytes]:
    """The first blocks of a capture, as a queue has them."""
    blocks: list[bytes] = []
    packets = 0
    for batch in read_packets(SensorInput("local", (str(path),)), ReadSettings(), ReadReport()):
        blocks.append(avro.encode_block(batch))
        packets += len(batch.packets)
        if packets >= most:
            break
    return blocks


def measure(blocks: Sequence[bytes], shards: int) -> Measured:
    """The chain over all blocks."""
    settings = FlowSettings()
    late, columns = settings.columns(LateColumns), settings.columns()
    workers = [Shard(settings, late, StreamRules(), "local", number) for number in range(shards)]
    clock, packets, parts, flows = time.process_time, 0, 0, 0
    split_s = fold_s = columns_s = 0.0
    for first in range(0, len(blocks), BUNDLE_BLOCKS):
        begin_s = clock()
        of_shards: list[list[Arrival]] = [[] for _ in range(shards)]
        for octets in blocks[first : first + BUNDLE_BLOCKS]:
            block = avro.decode_block(octets)
            packets += len(block.packets)
            for number, part in enumerate(split(block.packets, shards)):
                of_shards[number].append(Arrival(block._replace(packets=part)))
        packed = [pack(arrivals) for arrivals in of_shards]
        parts += sum(map(len, of_shards))
        split_s += clock() - begin_s
        begin_s = clock()
        ended = [
            output
            for shard, octets in zip(workers, packed, strict=True)
            for output in shard.take(unpack(octets))
            if isinstance(output, FinishedFlows)
        ]
        fold_s += clock() - begin_s
        begin_s = clock()
        if ended:
            flows += len(columns.joined(ended))
        columns_s += clock() - begin_s
    return Measured(shards, packets, parts, split_s, fold_s, columns_s, flows)


def fitted(rows: Sequence[Measured], seconds: Sequence[float]) -> tuple[np.ndarray, float]:
    """What a packet and a part cost, and the largest error of the fit, as a share."""
    counts = np.array([(row.packets, row.parts) for row in rows], float)
    cost, *_ = np.linalg.lstsq(counts, np.asarray(seconds), rcond=None)
    return cost, float(np.max(np.abs(counts @ cost / seconds - 1)))


def speed_up(shards: int, cores: int, elephant: float, seed: int) -> float:
    """How many times as fast as one core a cluster is, if shards lie on cores at random, as keys do."""
    random = np.random.default_rng(seed)
    load = np.bincount(random.integers(0, shards, MICE), minlength=shards) * (1 - elephant) / MICE
    load[random.integers(0, shards)] += elephant
    return 1 / float(np.bincount(random.integers(0, cores, shards), load, cores).max())


def main() -> None:
    """Measures, fits, simulates, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "flowbeam" / "benchmarks")
    parser.add_argument("--shards", type=int, help=argparse.SUPPRESS)  # in a process beside the one that measures
    arguments = parser.parse_args()
    blocks = blocks_of(capture("2m", arguments.folder), arguments.packets)
    if arguments.shards:
        while True:
            measure(blocks, arguments.shards)
    measure(blocks[:BUNDLE_BLOCKS], 4)  # kernels are loaded
    print("processes  shards   ns a packet: split    fold  columns   parts")
    alone: list[Measured] = []
    for processes in (1, 2):
        for shards in SHARDS:
            words = [sys.executable, __file__, f"--packets={arguments.packets}", f"--shards={shards}"]
            others = [subprocess.Popen([*words, f"--folder={arguments.folder}"]) for _ in range(processes - 1)]
            row = measure(blocks, shards)
            for other in others:
                other.kill()
            alone += [row] if processes == 1 else []
            times = "  ".join(f"{seconds / row.packets * 1e9:6.0f}" for seconds in row[3:6])
            print(f"{processes:9}  {shards:6}              {times}  {row.parts:6,}", flush=True)
    split, split_error = fitted(alone, [row.split_s for row in alone])
    fold, fold_error = fitted(alone, [row.fold_s for row in alone])
    flow_ns = np.mean([row.columns_s / row.flows for row in alone]) * 1e9
    for name, cost, error in (("split", split, split_error), ("fold", fold, fold_error)):
        packet_ns, part_us = cost[0] * 1e9, cost[1] * 1e6
        print(
            f"{name:6} {packet_ns:5.0f} ns a packet + {part_us:5.1f} us a part; within {error:.0%} of what was measured"
        )
    print(f"columns {flow_ns:,.0f} ns a flow")
    print(f"one flow is folded by one core: at most {1 / fold[0]:,.0f} packets/s of it")
    print("times as fast as one core (mean of", SEEDS, "seeds)")
    print("elephant  shards  " + "  ".join(f"{cores:5}" for cores in CORES) + "  cores")
    for elephant in ELEPHANTS:
        for shards in (8, 64, 256):
            means = [np.mean([speed_up(shards, cores, elephant, seed) for seed in range(SEEDS)]) for cores in CORES]
            print(f"{elephant:8.0%}  {shards:6}  " + "  ".join(f"{mean:5.1f}" for mean in means))


if __name__ == "__main__":
    main()
