"""Makes `models/demo`, the model that `make demo` scores with: a demonstration, trained on generated traffic.

    python demo/train_model.py [--output models/demo] [--packets 80000]

Offices and campuses are generated with the seeds below, none of which `make demo` uses. Their flows are made, labelled
with what the generator knows, and learned from; whole captures are held back to judge the model, and others to find its
threshold. The same settings give the same model. What it finds are this generator's attacks: train on traffic of your
own before you rely on any of it (docs/training.md).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines import flows, generate, label
from sinks.command import say
from training.saving import save
from training.split import SplitRule
from training.train import TrainSettings, train
from training.trees import TreeSettings
from transforms.records import InputError

TRAFFIC = [(profile, seed) for profile in ("office", "campus") for seed in (11, 12, 13, 14)]
FEATURES = "flowbeam@1"

NOTE = "A demonstration: it knows attacks of generated traffic, not yours."

ROUNDS = 40
"""Rounds of boosting: enough here, and the forest fits into a repository."""

MAX_FPR = 0.0005
"""The part of benign flows that may raise an alert."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="models/demo", metavar="DIR")
    parser.add_argument("--packets", default="80000", metavar="N", help="of each piece of traffic")
    options = parser.parse_args(arguments)
    output, before = Path(options.output).resolve(), Path.cwd()
    with tempfile.TemporaryDirectory(prefix="flowbeam-train-") as folder:
        os.chdir(folder)  # so that the model names its files without a folder that nobody else has
        try:
            return make_traffic(options.packets) or learn(output)
        except InputError as error:
            say(str(error))
            return 2
        finally:
            os.chdir(before)


def make_traffic(packets: str) -> int:
    """Puts labelled flows of all traffic into the folder `labelled`; returns the exit status of the last command."""
    for profile, seed in TRAFFIC:
        name = f"{profile}-{seed}"
        capture, truth, made = (f"{name}{ending}" for ending in (".pcap", ".csv", "-flows"))
        traffic = ["--profile", profile, "--seed", str(seed), "--packets", packets, "--labels", truth]
        job = ["--runner=DirectRunner", "--input", capture, "--features", FEATURES, "--output", f"parquet:{made}"]
        with_truth = ["--flows", made, "--attacks", truth, "--attacks_format", "truth"]
        for command, words in (
            (generate, ["--output", capture, *traffic]),
            (flows, job),
            (label, [*with_truth, "--output", f"labelled/{name}"]),
        ):
            status = command.main([*words, "--quiet"])
            if status:
                return status
    return 0


def learn(output: Path) -> int:
    """Trains on the folder `labelled`, and writes the model."""
    settings = TrainSettings(
        flows=("labelled",),
        label="label",
        features=FEATURES,
        split=SplitRule("group", "file"),
        name=output.name,
        max_fpr=MAX_FPR,
        beside=False,
        trees=TreeSettings(trees=ROUNDS),
    )
    trained = train(settings, say)
    described = trained.model._replace(training={"note": NOTE, **trained.model.training})
    model = save(trained._replace(model=described), output, keep_rows=0)
    print(f"{output}: model {model.id}, alerts from a score of {model.threshold:.3f} on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
