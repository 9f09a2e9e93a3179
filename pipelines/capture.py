"""The sensor: packets of an interface, or of captures, onto a queue, as blocks that hold all that flows are made of.

An interface, for as long as it is there (docs/sensor.md is the runbook):

    python -m pipelines.capture --input interface:eth0 --queue kafka://broker:9092/packets --sensor north

A capture as if it came from a line now:

    python -m pipelines.capture --input replay:capture.pcap --shift_times --queue kafka://broker:9092/packets

Captures as fast as possible into a folder, and from there to flows:

    python -m pipelines.capture --input capture.pcap --queue spool:blocks
    python -m pipelines.flows --input spool:blocks
"""

import os
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from functools import partial
from typing import NamedTuple

import numpy

import queues
from pipelines.capture_options import (
    FILES,
    INTERFACE,
    buffer_folder,
    buffer_settings,
    interface_settings,
    parse_options,
    replay_settings,
    sensor_settings,
)
from pipelines.terminal import Advance, configure_logging, progress
from sinks.command import say, signals_to, status_of
from sources.blocks import warm_up
from sources.captures import ReadReport, SensorInput, sensor_inputs
from sources.interface import InterfaceInput
from sources.journal import Journal
from sources.live import LiveInput
from sources.privileges import account_for, drop_privileges
from sources.replay import ReplayInput, ReplaySettings
from sources.sending import Sender
from sources.sensor import Sensor, SensorSettings
from sources.sensor_folder import Epochs, sensor_folder
from sources.sensor_meters import Health, Meters, served
from transforms.records import InputError


class Stopping(threading.Event):
    """Set by SIGINT, SIGTERM and SIGHUP; a second signal ends the process at once.

    Attributes:
        signal: The number of the signal; 0 before one came.
    """

    signal = 0

    def stop(self, number: int) -> None:
        """A signal came."""
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        self.set()


class _Input(NamedTuple):
    """Something that a sensor captures from; `report` is that of its files."""

    sensor: str
    open: Callable[[], AbstractContextManager[LiveInput]]
    report: ReadReport


def run(arguments: Sequence[str], stopping: Stopping) -> int:
    """Captures until the input ends or `stopping` is set; all that was captured is on the queue then, or kept.

    Returns:
        The exit status: a sensor that is told to stop has done its work, files that are half read are not.

    Raises:
        InputError: A setting is wrong, or nothing could be captured or written.
    """
    options = parse_options(arguments)
    settings = sensor_settings(options)
    started = time.monotonic()
    with ExitStack() as stack:
        inputs = _inputs(options, stack)
        _become_user(options)
        journal = Journal(buffer_settings(options), options.sensor)
        stack.callback(journal.close)
        sender = _sender(options, journal, settings)
        meters = Meters()
        if options.metrics_port is not None:
            stack.enter_context(served(options.metrics_port, options.sensor, meters, journal, sender))
        health = None if options.kind == FILES else Health(meters, journal)
        epochs = Epochs(buffer_folder(options))
        sender.start()
        stack.callback(sender.stop)

        def sensor(name: str) -> Sensor:
            return Sensor(name, settings, journal, sender, meters, epochs.next, health, say, stopping)

        try:
            _capture(inputs, sensor, stopping)
        except InputError:
            if sender.failure is None:
                sender.drained(options.stop_timeout_s)
            raise
        _drain(sender, journal, stopping, options)
    if not options.quiet and (options.kind != INTERFACE or sys.stdout.isatty()):  # a service's log has no use for it
        _show(meters, options.queue, time.monotonic() - started)
    return 128 + stopping.signal if stopping.signal and options.kind == FILES else 0


def _inputs(options: Namespace, stack: ExitStack) -> list[_Input]:
    """What is captured from; an interface is open already."""
    if options.kind == INTERFACE:
        warm_up()
        interface = stack.enter_context(closing(InterfaceInput(interface_settings(options))))
        return [_Input(options.sensor, lambda: nullcontext(interface), ReadReport())]
    replay = replay_settings(options)
    sensors = sensor_inputs(options.names, options.sensor, options.sensor_from or "all")
    if options.kind == FILES and not options.quiet and sys.stderr.isatty():
        progress.show(_octets_of(sensors))
        stack.callback(progress.end)
    return [_replayed(one, replay) for one in sensors]


def _replayed(files: SensorInput, settings: ReplaySettings) -> _Input:
    report = ReadReport()
    return _Input(files.sensor, lambda: closing(ReplayInput(files, settings, report, Advance())), report)


def _become_user(options: Namespace) -> None:
    """Gives up the rights that only opening an interface takes; its buffer goes to the user that is left."""
    if options.kind != INTERFACE and options.user is None:
        return
    folder = buffer_folder(options)
    own = sensor_folder(folder, options.sensor)
    account = account_for(options.user, str(own))
    if account is not None:
        try:
            own.mkdir(parents=True, exist_ok=True)
            (folder / "epoch").touch()
            for path in (folder / "epoch", own, *own.iterdir()):
                os.chown(path, account.uid, account.gid)
        except OSError as error:
            say(f"{own}: cannot be given to {account.name}: {error.strerror}")
    drop_privileges(account)
    unreadable = [path for path in (os.__file__, numpy.__file__, __file__) if not os.access(path, os.R_OK)]
    if account is not None and unreadable:  # parts of them are loaded when they are first needed
        raise InputError(
            f"--user {account.name}: cannot read {os.path.dirname(unreadable[0])}, which the sensor runs from; install"
            " it where every user can, or say --user root"
        )


def _sender(options: Namespace, journal: Journal, settings: SensorSettings) -> Sender:
    """What hands blocks to the queue; a sensor that knows the queue from its last run begins even if it is down."""
    opened = partial(queues.open_live, options.queue)
    try:
        writer = opened()
    except InputError as error:
        known = journal.known_of(options.queue)
        if known is None:
            raise
        say(f"{error}; blocks are kept, trying again")
        settings.blocks = settings.blocks.within(known[1])
        return Sender(journal, opened, None, say, True, known[0])
    journal.remember(options.queue, writer.partitions, writer.message_octets_most)
    settings.blocks = settings.blocks.within(writer.message_octets_most)
    return Sender(journal, opened, writer, say, options.kind != FILES)


def _capture(inputs: Sequence[_Input], sensor: Callable[[str], Sensor], stopping: Stopping) -> None:
    """Captures from one input after another; one that cannot be read is one line, the others go on.

    Raises:
        InputError: Nothing can be read, or the queue cannot be written to.
    """
    unreadable = []
    for one in inputs:
        if stopping.is_set():
            break
        try:
            opened = one.open()
        except InputError as error:
            unreadable.append(str(error))
            continue
        with opened as source:
            sensor(one.sensor).run(source)
        for line in one.report.damage:
            say(line)
    if len(unreadable) == len(inputs) == 1:
        raise InputError(unreadable[0])
    for line in unreadable:
        say(line)
    if len(unreadable) == len(inputs):
        raise InputError(f"none of the {len(inputs)} inputs can be read; see the lines above")


def _drain(sender: Sender, journal: Journal, stopping: Stopping, options: Namespace) -> None:
    """Waits until the queue has everything; after a signal no longer than the timeout."""
    while not stopping.is_set():
        if sender.drained(0.2):
            return
    if not sender.drained(options.stop_timeout_s):
        lost = journal.octets_in_memory
        kept = "are lost" if options.kind == FILES or lost else "are kept for the next start"
        say(f"{journal.waiting:,} blocks are not on the queue; they {kept}")


def _octets_of(sensors: Sequence[SensorInput]) -> int | None:
    """Size of the capture files; None where it is not known."""
    paths = [path for sensor_input in sensors for path in sensor_input.files]
    return None if "-" in paths else sum(map(os.path.getsize, paths))


def _show(meters: Meters, queue: str, seconds: float) -> None:
    """Prints the figures for a person."""
    from rich.console import Console
    from rich.table import Table

    rejects = meters.rejects
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(rejects.items()))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_row("packets", f"{meters.packets:,} read, {meters.packets_kept:,} in blocks")
    table.add_row("rejects", f"{rejects.total():,}" + (f": {reasons}" if reasons else ""))
    if meters.kernel_drops:
        table.add_row("lost", f"{meters.kernel_drops:,} packets, by the kernel or the card")
    if meters.queue_drops:
        table.add_row("dropped", f"{meters.queue_drops:,}, the buffer was full")
    table.add_row("blocks", f"{meters.blocks:,}, {meters.block_octets:,} octets")
    table.add_row("speed", f"{seconds:.2f} s, {meters.packets / max(seconds, 1e-9):,.0f} packets/s")
    table.add_row("try", f"python -m pipelines.flows --input {queue.partition('?')[0]}")
    Console(soft_wrap=True, highlight=False).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    configure_logging()
    stopping = Stopping()

    def work() -> int:
        with signals_to(stopping.stop):
            return run(sys.argv[1:] if arguments is None else arguments, stopping)

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
