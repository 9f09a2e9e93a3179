"""Labelled flows in, a model with an honest report out; and models judged and trained further.

    python -m pipelines.train --flows labelled --output models/office
    python -m pipelines.train --flows Friday.csv --label_column Label --features cic@1 --output models/ids
    python -m pipelines.train --evaluate models/ids --flows Monday.csv --label_column Label --metrics monday.json
    python -m pipelines.train --continue models/office --flows labelled/this-week

docs/training.md tells what each step does.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.terminal import configure_logging
from pipelines.train_options import model_place, new_data, parse_options, train_settings
from sinks.command import say, status_of
from transforms.model.folder import check_place
from transforms.records import InputError

if TYPE_CHECKING:
    from training.report import Report

NOT_BETTER = 1
"""Exit status of `--continue` where the old model stays."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    configure_logging()
    return status_of(lambda: _run(parse_options(arguments)))


def _run(options: Namespace) -> int:
    if getattr(options, "continue"):
        return _continue(options)
    if options.evaluate:
        _evaluate(options)
    else:
        _train(options)
    return 0


def _train(options: Namespace) -> None:
    place = model_place(options)
    if options.flows:
        from training import saving, train

        check_place(place)
        trained = train.train(train_settings(options), _tell(options))
        model = saving.save(trained, place, options.keep_rows)
        if not options.quiet:
            _show(trained.report)
            print(f"{place}: model {model.id}; {place / 'report.html'} tells the rest")
    if options.export_savedmodel:
        from transforms.model.savedmodel import export_savedmodel

        export_savedmodel(place, Path(options.export_savedmodel))
        if not options.quiet:
            print(f"{options.export_savedmodel}: {place} as a TensorFlow SavedModel")


def _evaluate(options: Namespace) -> None:
    from training import continuing
    from training.report import write_report

    report = continuing.evaluate(Path(options.evaluate), new_data(options), _tell(options))
    if options.metrics:
        path = Path(options.metrics)
        said = {"model": report.model, "files": [file.name for file in report.files], **report.metrics.to_json()}
        try:
            path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--metrics {path}: cannot be written: {error.strerror}") from error
        write_report(report, path.with_suffix(".html"))
    if not options.quiet:
        _show(report)
        if options.metrics:
            print(f"{options.metrics}: all figures; {Path(options.metrics).with_suffix('.html')} shows them")


def _continue(options: Namespace) -> int:
    from training import continuing, saving
    from training.split import SplitRule

    old = Path(getattr(options, "continue"))
    place = model_place(options) if options.output else old
    if options.output:
        check_place(place)
    continued = continuing.continue_training(old, new_data(options), SplitRule.parse(options.split), _tell(options))
    after = continued.trained.report.metrics
    if not options.quiet:
        _show(continued.trained.report)
        for rows, before, now in (
            ("new rows", continued.before, after),
            ("older rows", continued.old_before, continued.old_after),
        ):
            print(
                f"  {now.rows:,} {rows}, held back: accuracy {before.accuracy:.4f} before, {now.accuracy:.4f} now;"
                f" macro F1 {before.macro_f1:.4f} before, {now.macro_f1:.4f} now"
            )
    if not continued.is_better:
        say(f"{old}: stays as it is; the model trained further is not better on new rows, or forgets older ones")
        return NOT_BETTER
    model = saving.save(continued.trained, place, options.keep_rows)
    if not options.quiet:
        print(f"{place}: model {model.id} takes the place of {continued.trained.model.history[-1]['id']}")
    return 0


def _tell(options: Namespace) -> Callable[[str], None]:
    return (lambda _: None) if options.quiet else say


def _show(report: "Report") -> None:
    from training.report import findings

    for finding in findings(report):
        print(("! " if finding.is_warning else "  ") + finding.text)
    metrics = report.metrics
    print(f"  {metrics.rows:,} rows judged: accuracy {metrics.accuracy:.4f}, macro F1 {metrics.macro_f1:.4f}")


if __name__ == "__main__":
    sys.exit(main())
