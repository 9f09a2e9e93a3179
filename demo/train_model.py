"""Makes `models/demo`, the model that `make demo` scores with: a demonstration, trained on generated traffic.

    python demo/train_model.py [--output models/demo] [--packets 150000]

Offices and campuses are generated with the seeds below, none of which `make demo` uses. Their flows are made, labelled
with what the generator knows, and learned from. The same settings give the same model. What it finds are this
generator's attacks: train on traffic of your own before you rely on any of it (docs/training.md).
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines import flows, generate, label, train
from transforms.model.folder import FOREST, write_model_folder
from transforms.model.forest import open_forest

TRAFFIC = [(profile, seed) for profile in ("office", "campus") for seed in (11, 12, 13)]
FEATURES = "cic@1"

NOTE = "A demonstration: it knows attacks of generated traffic, not yours. Figures are those of all rounds of trees."

ROUNDS = 40
"""Rounds of boosting that are kept of 200."""

THRESHOLD = 0.1
"""Above the scores of benign flows that it learned from, 0.03 at the most; of exfiltrations, few, it is less sure."""


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="models/demo", metavar="DIR")
    parser.add_argument("--packets", default="150000", metavar="N", help="of each piece of traffic")
    options = parser.parse_args()
    output = Path(options.output).resolve()
    with tempfile.TemporaryDirectory(prefix="flowbeam-train-") as folder:
        os.chdir(folder)  # so that the model names its files without a folder that nobody else has
        labelled = Path("labelled")
        for profile, seed in TRAFFIC:
            name = f"{profile}-{seed}"
            capture, truth, made = (f"{name}{ending}" for ending in (".pcap", ".csv", "-flows"))
            traffic = ["--profile", profile, "--seed", str(seed), "--packets", options.packets, "--labels", truth]
            job = ["--runner=DirectRunner", "--input", capture, "--features", FEATURES, "--output", f"parquet:{made}"]
            with_truth = ["--flows", made, "--attacks", truth, "--attacks_format", "truth"]
            for command, words in (
                (generate, ["--output", capture, *traffic]),
                (flows, job),
                (label, [*with_truth, "--output", str(labelled / name)]),
            ):
                status = command.main([*words, "--quiet"])
                if status:
                    return status
        trained = Path("demo")
        learn = ["--flows", str(labelled), "--features", FEATURES, "--split", "random:0.2", "--brief"]
        status = train.main([*learn, "--output", str(trained), "--keep_rows", "0"])
        if status == 0:
            place(trained, output)
        return status


def place(trained: Path, output: Path) -> None:
    """Copies the model to its place: with fewer trees, which are as good here and fit into a repository, and a note."""
    forest = open_forest(trained)
    while forest.trees.num_trees() > ROUNDS * len(forest.model.classes):
        forest.trees.remove_tree(forest.trees.num_trees() - 1)

    def write(hidden: Path) -> None:
        forest.trees.save(str(hidden / FOREST))
        for name in ("reference.json", "metrics.json", "report.html"):
            shutil.copy(trained / name, hidden / name)

    training = {"note": NOTE, "rounds_kept": ROUNDS, **forest.model.training}
    write_model_folder(output, forest.model._replace(training=training, threshold=THRESHOLD), write)


if __name__ == "__main__":
    sys.exit(main())
