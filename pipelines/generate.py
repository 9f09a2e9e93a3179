"""Writes a capture of synthetic traffic, benign and hostile, and the truth about each of its flows.

    python -m pipelines.generate --output demo.pcap --packets 100000 --labels demo.csv
    python -m pipelines.generate --output campus.pcapng --packets 1000000 --profile campus --seed 7
    python -m pipelines.generate --output bulk.pcap --packets 2000000 --profile bulk --flows 100000

The same settings and seed give the same octets. `--labels` names the class of every flow by the `flow_id` that the
pipeline computes with default settings.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipelines.config import parsed
from sinks.command import OneLineParser, status_of
from sources.generate.capture import GenerateSettings, generate
from sources.generate.profiles import PROFILES
from transforms.records import InputError
from transforms.times import time_ns

_DEFAULT_START = "2026-01-05T08:00:00Z"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return status_of(lambda: _run(parsed(_parser(), argv)))


def _run(arguments: argparse.Namespace) -> None:
    settings = GenerateSettings(
        output=arguments.output,
        packets=arguments.packets,
        seed=arguments.seed,
        profile=arguments.profile,
        flows=arguments.flows,
        labels=arguments.labels,
        start_ns=_start_ns(arguments.start),
    )
    with _progress(settings.packets, arguments.quiet) as on_progress:
        generated = generate(settings, on_progress)
    if not arguments.quiet:
        print(
            f"{settings.output}: {generated.packets:,} packets, {generated.flows:,} flows, "
            f"{generated.frame_octets:,} octets, {generated.seconds:,.0f} s of traffic"
        )


def _parser() -> argparse.ArgumentParser:
    profiles = "\n".join(f"  {name:<10} {profile.doc}" for name, profile in PROFILES.items())
    parser = OneLineParser(
        prog="python -m pipelines.generate",
        description=(__doc__ or "").split("\n", 1)[0],
        epilog=f"profiles:\n{profiles}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the capture; pcapng if it ends in .pcapng")
    parser.add_argument("--packets", required=True, type=int, metavar="N", help="how many packets, exactly")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="whole number; another seed, other traffic (1)"
    )
    parser.add_argument("--profile", default="office", metavar="P", help=f"{', '.join(PROFILES)} (office)")
    parser.add_argument("--flows", type=int, metavar="F", help="about how many flows; with --profile=bulk")
    parser.add_argument("--labels", default="", metavar="FILE", help="CSV of each flow's class by flow_id")
    parser.add_argument("--start", default=_DEFAULT_START, metavar="TIME", help=f"ISO 8601 ({_DEFAULT_START})")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    return parser


def _start_ns(text: str) -> int:
    try:
        return time_ns(text)
    except ValueError as error:
        raise InputError(f"--start={text}: not a time such as {_DEFAULT_START}") from error


@contextmanager
def _progress(packets: int, is_quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("packets", total=packets)
        yield lambda done: progress.update(task, completed=done)


if __name__ == "__main__":
    sys.exit(main())
