"""Captures onto a queue, as blocks of packets that hold all that flows are made of.

Into a folder, and from there to flows:

    python -m pipelines.capture --input capture.pcap --queue spool:blocks
    python -m pipelines.flows --input spool:blocks
"""

import os
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import queues
from pipelines.terminal import Advance, OneLineParser, configure_logging, progress, say
from queues import QueueWriter
from sources.capture import closed, publish
from sources.captures import ReadReport, ReadSettings, SensorInput, read_packets, sensor_inputs
from sources.headers import TUNNEL_KINDS, HeaderSettings
from transforms.records import InputError


@dataclass
class Published:
    """What was put on the queue.

    Attributes:
        packets_read: Packets of the input: those in blocks, and rejects.
        rejects: Packets that are in no block, by reason.
        blocks: Blocks, with the one that ends each sensor's stream.
    """

    packets_read: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    blocks: int = 0


def parse_options(arguments: Sequence[str]) -> Namespace:
    """The options.

    Raises:
        InputError: An option is unknown or its value is wrong.
    """
    parser = OneLineParser("python -m pipelines.capture", description="Puts captures on a queue.", allow_abbrev=False)
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        help="Capture file, folder, glob, or - for standard input; repeatable.",
    )
    add("--queue", required=True, help=f"Where blocks go: {', '.join(f'{scheme}:…' for scheme in queues.schemes())}.")
    add("--sensor", default="local", help="Name of the sensor that the captures come from. Default local.")
    add(
        "--sensor_from",
        choices=("all", "file", "folder"),
        default="all",
        help="One sensor for all files, or one for each file or folder. Default all.",
    )
    add("--payload_octets", type=int, default=0, help="Octets of each packet's payload to carry. Default 0.")
    add("--decapsulate", default=",".join(TUNNEL_KINDS), help="Tunnels to open, or none. Default %(default)s.")
    add("--block_packets", type=int, default=4096, help="The most packets of a block. Default 4096.")
    add("--temp_dir", help="Folder for what must be sorted on disk. Default the system's.")
    add("--quiet", action="store_true", help="No progress bar, no summary.")
    return parser.parse_args(list(arguments))


def run(arguments: Sequence[str]) -> None:
    """Reads the captures onto the queue.

    Raises:
        InputError: A setting is wrong, or nothing could be read or written.
    """
    options = parse_options(arguments)
    kinds = tuple(kind.strip() for kind in options.decapsulate.split(",") if kind.strip())
    headers = HeaderSettings(() if kinds == ("none",) else kinds, options.payload_octets, headers_hash=True)
    settings = ReadSettings(headers, options.block_packets, options.temp_dir, max_rejects=0)
    sensors = sensor_inputs(options.input, options.sensor, options.sensor_from)
    started = time.monotonic()
    if not options.quiet and sys.stderr.isatty():
        progress.show(_octets_of(sensors))
    try:
        with queues.open_writer(options.queue) as queue:
            published = publish_sensors(sensors, settings, queue)
    finally:
        progress.end()
    if not options.quiet:
        _show(published, queue.octets_written, options.queue, time.monotonic() - started)


def publish_sensors(sensors: Sequence[SensorInput], settings: ReadSettings, queue: QueueWriter) -> Published:
    """Puts sensor after sensor on the queue; one whose input cannot be read is one line, the others go on.

    Raises:
        InputError: No sensor can be read, or the queue cannot be written to.
    """
    published = Published()
    unreadable = []
    for sensor_input in sensors:
        report = ReadReport()
        batches = read_packets(sensor_input, settings, report, Advance())
        try:
            first = list(islice(batches, 1))
        except InputError as error:
            unreadable.append(str(error))
            continue
        published.blocks += publish(closed(chain(first, batches), sensor_input.sensor, report), queue)
        published.packets_read += report.packets_read
        published.rejects.update(report.rejects)
        for line in report.damage:
            say(line)
    if len(unreadable) == len(sensors) == 1:
        raise InputError(unreadable[0])
    for line in unreadable:
        say(line)
    if len(unreadable) == len(sensors):
        raise InputError(f"none of the {len(sensors)} inputs can be read; see the lines above")
    return published


def _octets_of(sensors: Sequence[SensorInput]) -> int | None:
    """Size of the capture files; None where it is not known."""
    paths = [path for sensor_input in sensors for path in sensor_input.files]
    return None if "-" in paths else sum(map(os.path.getsize, paths))


def _show(published: Published, octets: int, queue: str, seconds: float) -> None:
    """Prints the figures for a person."""
    from rich.console import Console
    from rich.table import Table

    packets = published.packets_read - published.rejects.total()
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(published.rejects.items()))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_row("packets", f"{published.packets_read:,} read, {packets:,} in blocks")
    table.add_row("rejects", f"{published.rejects.total():,}" + (f": {reasons}" if reasons else ""))
    table.add_row("blocks", f"{published.blocks:,}, {octets:,} octets")
    table.add_row("speed", f"{seconds:.2f} s, {published.packets_read / max(seconds, 1e-9):,.0f} packets/s")
    table.add_row("try", f"python -m pipelines.flows --input {queue.partition('?')[0]}")
    Console(soft_wrap=True, highlight=False).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    configure_logging()
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except InputError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; no half-written file is left")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
