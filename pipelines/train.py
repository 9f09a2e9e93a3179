"""Labelled flows in, a model with an honest report out; and models judged and trained further.

    python -m pipelines.train --flows labelled --features flowbeam@1 --output models/office
    python -m pipelines.train --flows Friday.csv --label_column Label --features cic@1 --output models/ids
    python -m pipelines.train --evaluate models/ids --flows Monday.csv --label_column Label --metrics monday.json
    python -m pipelines.train --continue models/office --flows labelled/this-week

docs/training.md tells what each step does.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from pipelines.terminal import configure_logging, say
from pipelines.train_options import model_place, parse_options, train_settings
from transforms.records import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    configure_logging()
    try:
        run(parse_options(arguments))
    except InputError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; no half-written model is left")
        return 130
    return 0


def run(options: Namespace) -> None:
    """Does what the options ask for.

    Raises:
        InputError: A setting is wrong, or the data cannot be used.
    """
    from training import saving, train
    from training.report import findings

    tell = (lambda _: None) if options.quiet else say
    settings = train_settings(options)
    trained = train.train(settings, tell)
    place = model_place(options)
    model = saving.save(trained, place, options.keep_rows)
    if not options.quiet:
        for finding in findings(trained.report):
            print(("! " if finding.is_warning else "  ") + finding.text)
        metrics = trained.report.metrics
        print(f"{place}: model {model.id}, accuracy {metrics.accuracy:.4f}, macro F1 {metrics.macro_f1:.4f};")
        print(f"{Path(place) / 'report.html'} tells the rest")


if __name__ == "__main__":
    sys.exit(main())
