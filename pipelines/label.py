"""Labels flows: which of them are attacks, as a table of attacks, Suricata, Zeek or the generator tells it.

    python -m pipelines.label --flows flows --attacks attacks.csv --output labelled
    python -m pipelines.label --flows flows --attacks eve.json --attacks notice.log --output labelled

Every column stays; `label`, `attack_category` and `label_source` are added. docs/labelling.md says how flows are
matched, and what the published corrections do.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from pipelines.config import parsed
from sinks.command import OneLineParser, status_of
from training.labels.flow_files import MATCHES, OVERLAPS, check_output, flow_files, label_files
from training.labels.labeller import ATTEMPTED_AS, Labeller, LabelSettings
from training.labels.read import FORMATS, ReadSettings, read_tellers
from transforms.records import InputError

_SHOWN_ATTACKS, _SHOWN_OVERLAPS = 30, 10
_LONGEST_NAME = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return status_of(lambda: _run(parsed(_parser(), argv)))


def _run(arguments: argparse.Namespace) -> None:
    flows, output = Path(arguments.flows), Path(arguments.output)
    flow_files(flows)
    check_output(output, flows)
    labeller = _labeller(arguments)
    with _progress(arguments.quiet) as on_progress:
        rows = label_files(flows, output, labeller, on_progress)
    if not arguments.quiet:
        _show(labeller, rows, arguments.output)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m pipelines.label",
        description=(__doc__ or "").split("\n", 1)[0],
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--flows", required=True, metavar="DIR", help="folder of Parquet flows, or one file")
    add("--attacks", required=True, action="append", metavar="FILE",
        help="table of attacks (.csv, .yaml, .json), EVE log, notice.log, or truth by flow_id; repeatable, the first"
        " that holds for a flow counts")  # fmt: skip
    add("--output", required=True, metavar="DIR", help="folder for the labelled flows")
    add("--attacks_format", default="auto", choices=FORMATS, help=f"what --attacks is: {', '.join(FORMATS)} (auto)")
    add("--attempted", default="label", choices=ATTEMPTED_AS,
        help="what flows are called that lack the payload their attack needs: label (attempted), attack, benign"
        " (label)")  # fmt: skip
    add("--benign", default="benign", metavar="LABEL", help="label of flows that nothing names (benign)")
    add("--match", default="start", choices=("start", "overlap"),
        help="flows of a table's attack start within it, or overlap it (start)")  # fmt: skip
    add("--slack_s", type=float, default=0.0, metavar="S", help="attacks and alerts may be off by so much (0)")
    add("--notice_window_s", type=float, default=300.0, metavar="S",
        help="a notice about hosts concerns flows that start so long before or after it (300)")  # fmt: skip
    add("--zone", default="UTC", metavar="ZONE", help="time zone of a table's times that name none (UTC)")
    add("--quiet", action="store_true", help="no progress, no table")
    return parser


def _labeller(arguments: argparse.Namespace) -> Labeller:
    for name in ("slack_s", "notice_window_s"):
        if not 0 <= getattr(arguments, name) < 1e9:
            raise InputError(f"--{name}: {getattr(arguments, name):g} s; give 0 or more")
    if not arguments.benign:
        raise InputError("--benign: is empty; name the label of flows that are no attack")
    settings = ReadSettings(
        format=arguments.attacks_format,
        zone=_zone(arguments.zone),
        overlap=arguments.match == "overlap",
        slack_ns=round(arguments.slack_s * 1e9),
        window_ns=round(arguments.notice_window_s * 1e9),
        benign=arguments.benign,
    )
    tellers = [teller for path in arguments.attacks for teller in read_tellers(Path(path), settings)]
    return Labeller(tellers, LabelSettings(arguments.benign, arguments.attempted))


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"--zone {name}: is no time zone such as UTC or Europe/Berlin") from error


@contextmanager
def _progress(is_quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A count on a terminal; nothing elsewhere."""
    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn

    with Progress(SpinnerColumn(), "flows", MofNCompleteColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("flows", total=None)
        yield lambda rows: bar.advance(task, rows)


def _show(labeller: Labeller, rows: int, output: str) -> None:
    """Prints what matched what."""
    lines: list[tuple[str, ...]] = [
        ("attack", "category", "from", "matched", "labelled", "attempted", "lost", "unmatched")
    ]
    matched = labeller.table()
    for one in matched[:_SHOWN_ATTACKS]:
        unmatched = f"{one.unmatched_events:,} of {one.attack.events:,} events" if one.attack.events else ""
        if not one.matched and not one.attack.events:
            unmatched = "no flow"
        counts = (f"{count:,}" for count in (one.matched, one.labelled, one.attempted, one.lost))
        lines.append((*map(_text, one.attack[:3]), *counts, unmatched))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        names = (cell.ljust(width) for cell, width in zip(line[:3], widths, strict=False))
        numbers = (cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True))
        print("  ".join((*names, *numbers)).rstrip())
    if len(matched) > _SHOWN_ATTACKS:
        print(f"and {len(matched) - _SHOWN_ATTACKS:,} more in {output}/{MATCHES}")
    overlaps = labeller.overlaps()
    for overlap in overlaps[:_SHOWN_OVERLAPS]:
        first, second = (f"{_text(attack.name)} ({_text(attack.source)})" for attack in (overlap.first, overlap.second))
        print(f"overlap: {overlap.flows:,} flows of {first}, which counts, are also of {second}")
    if len(overlaps) > _SHOWN_OVERLAPS:
        print(f"and {len(overlaps) - _SHOWN_OVERLAPS:,} more overlaps in {output}/{OVERLAPS}")
    counted = labeller.labels.most_common(_SHOWN_ATTACKS)
    labels = ", ".join(f"{_text(name or 'no label')} {count:,}" for name, count in counted)
    print(f"{output}: {rows:,} flows: {labels}")


def _text(name: str) -> str:
    """A name without what steers terminals, and not endless."""
    shown = "".join(one if one.isprintable() else "\ufffd" for one in name)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
