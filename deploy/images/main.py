"""What Dataflow's launcher runs: the main job, as `python -m pipelines.flows` does.

A template's parameters are a map of texts, each of which becomes `--name=value`. So that there may be lists and
switches among them, `--settings` has all options of the job as JSON, which is YAML: what `--config` reads.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.flows import main
from pipelines.terminal import leave

SETTINGS = "--settings="


def words(arguments: Sequence[str], folder: Path) -> Iterator[str]:
    """The words of the command line, with a file of the folder for what is in `--settings`."""
    for word in arguments:
        if word.startswith(SETTINGS):
            file = folder / "settings.yaml"
            file.write_text(word.removeprefix(SETTINGS), encoding="utf-8")
            word = f"--config={file}"
        yield word


if __name__ == "__main__":
    leave(main([*words(sys.argv[1:], Path(tempfile.mkdtemp()))]))
