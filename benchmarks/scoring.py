"""Scoring inside the pipeline beside YDF alone, and alerts explained in a second; same model, same rows, one machine.

    python benchmarks/scoring.py [--model models/demo] [--flows 1000000] [--repeat 5]

Flows with random features are scored by YDF in one call, from a dictionary of columns that is there already, and by
`ScoreFlows` in a Beam job on DirectRunner's FnApiRunner, from record batches of 8,192 flows: columns taken out of them,
scored, verdicts appended. The best of the repetitions is told; the job's time is that of its scoring step (the job's
less that of the same job without it). Explained are all flows, as if each were an alert. The second figure of a line
is by processor time, all threads together: on a busy machine that is the one to look at.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pipelines  # noqa: F401 - memory is kept as in every command
from transforms import coders, fields
from transforms.features import sets
from transforms.model.inputs import canonical_needed, model_inputs
from transforms.model.live import ScoreSettings
from transforms.score import ScoreFlows

ROWS = 8192


def made_up(columns: tuple[str, ...], flows: int) -> list[pa.RecordBatch]:
    """Batches of flows with these canonical columns."""
    rng = np.random.default_rng(1)
    schema = fields.arrow_schema(sets.CANONICAL[name] for name in columns)
    batches = []
    for rows in [ROWS] * (flows // ROWS):
        arrays = [pa.array(rng.integers(0, 2000, rows).astype(float)).cast(field.type, safe=False) for field in schema]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return batches


class Seconds(NamedTuple):
    """How long something took, by the wall's clock and by the processor's."""

    wall: float
    processor: float

    def without(self, other: "Seconds") -> "Seconds":
        """What is left of it."""
        return Seconds(self.wall - other.wall, self.processor - other.processor)


def best_of(repeat: int, work: Callable[[], object]) -> Seconds:
    """The least of the repetitions."""
    walls, processors = [], []
    for _ in range(repeat):
        started, used = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - started)
        processors.append(time.process_time() - used)
    return Seconds(min(walls), min(processors))


def line(name: str, amount: int, unit: str, took: Seconds) -> str:
    """What was measured, for a person."""
    return f"{name:<20} {amount / took.wall:>12,.0f} {unit}/s {amount / took.processor:>12,.0f}"


def batches_of(path: str) -> list[pa.RecordBatch]:
    """Those of a file: what a job is made of travels to its workers, and should be small."""
    with pa.ipc.open_file(pa.memory_map(path)) as file:
        return [file.get_batch(number) for number in range(file.num_record_batches)]


def job(path: str, step: beam.PTransform | None) -> Callable[[], None]:
    """A Beam job that goes through the batches of a file, and through the step if there is one."""

    def run() -> None:
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            flows = pipeline | beam.Create([path], reshuffle=False)
            flows = flows | "Read" >> beam.FlatMap(batches_of).with_output_types(pa.RecordBatch)
            if step is not None:
                flows = flows | "ScoreFlows" >> step
            _ = flows | "Count" >> beam.Map(len)

    return run


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/demo", metavar="DIR")
    parser.add_argument("--flows", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--repeat", type=int, default=5, metavar="N")
    options = parser.parse_args()
    assert coders is not None
    settings = ScoreSettings(options.model, explain=3)
    (forest, explainer), model = settings.open(), settings.model()
    batches = made_up(canonical_needed(model.feature_set, model.features), options.flows)
    table = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    inputs = model_inputs(table, model.feature_set, model.features)
    rows = len(table)
    trees = forest.trees
    print(f"{rows:,} flows, {len(model.features)} features, {trees.num_trees()} trees, {trees.num_nodes():,} nodes")
    alone = best_of(options.repeat, lambda: trees.predict(inputs))
    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        with pa.ipc.new_file(file.name, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        empty = best_of(options.repeat, job(file.name, None))
        inside = best_of(options.repeat, job(file.name, ScoreFlows(ScoreSettings(options.model)))).without(empty)
    print(line("YDF alone", rows, "flows", alone))
    print(line("inside the pipeline", rows, "flows", inside))
    print(f"of YDF alone         {alone.wall / inside.wall:.2f} {alone.processor / inside.processor:.2f}")
    values = np.stack([inputs[name][:ROWS] for name in model.features])
    attacks = [number for number, name in enumerate(model.classes) if name != model.benign]
    classes = np.resize(attacks, ROWS)
    explained = best_of(options.repeat, lambda: explainer.contributions(values, classes))
    print(line("explained", ROWS, "alerts", explained))


if __name__ == "__main__":
    main()
