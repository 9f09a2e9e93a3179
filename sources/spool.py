"""Input that cannot be read in order of time where it lies: sorted by parts in temporary files, then merged.

What comes through a pipe cannot be read twice; a file whose times jump back and forth all over would have to be in
memory as a whole. Their packets are parsed once and kept as runs of rows, each in order. A small one stays in memory.
"""

import os
import tempfile
from typing import IO, NamedTuple

import numpy as np

from sources.capture_file import SPAN, SPAN_PACKETS
from sources.rows import RowBuffer, Rows, in_order_of_time, joined
from transforms.records import PACKET, InputError

RUN_PACKETS = 1 << 19
RUN_PAYLOAD_OCTETS = 64 << 20
_SMALL_SPAN = 256


class _Run(NamedTuple):
    """Rows in order of time, in memory or in temporary files."""

    packets: int
    payload_octets: int
    first_ns: np.ndarray  # time of every 256th row
    last_ns: np.ndarray  # and of the one before the next of those
    rows: Rows | None
    packets_file: IO[bytes] | None
    payloads_file: IO[bytes] | None


class Spool:
    """Keeps the packets of one input as sorted runs, and gives them back as a source of rows."""

    def __init__(self, temp_dir: str | None, run_packets: int = RUN_PACKETS) -> None:
        self._temp_dir = temp_dir
        self._run_packets = run_packets
        self._parts: list[Rows] = []
        self._waiting = 0
        self._waiting_octets = 0
        self._runs: list[_Run] = []
        self._current = (0, 0, 0)

    def add(self, rows: Rows) -> None:
        """Appends packets, in any order."""
        if len(rows.packets):
            self._parts.append(rows)
            self._waiting += len(rows.packets)
            self._waiting_octets += len(rows.payloads)
            if self._waiting >= self._run_packets or self._waiting_octets >= RUN_PAYLOAD_OCTETS:
                self._end_run(in_memory=False)

    def finish(self, in_memory: bool) -> None:
        """Ends the input; what never filled a run may stay in memory."""
        if self._parts:
            self._end_run(in_memory and not self._runs)

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    @property
    def packets_in_memory(self) -> int:
        """Packets that are not in temporary files."""
        return sum(run.packets for run in self._runs if run.rows is not None)

    def spans(self, source: int, small: bool) -> np.ndarray:
        """`SPAN[n]` of all runs, as those of file `source`; small ones where very many runs are merged."""
        step = 1 if small else SPAN_PACKETS // _SMALL_SPAN
        found = [_spans(run, source, part, step) for part, run in enumerate(self._runs)]
        return np.concatenate([np.zeros(0, SPAN), *found])

    def go_to(self, spans: np.ndarray) -> None:
        """See `SpanSource`."""
        self._current = int(spans[0]["part"]), int(spans[0]["start"]), int(spans[-1]["stop"])

    def fill(self, rows: RowBuffer) -> bool:
        """See `SpanSource`."""
        part, at, stop = self._current
        until = min(stop, at + min(rows.room, SPAN_PACKETS))
        if until <= at:
            return False
        rows.add(self._read(self._runs[part], at, until))
        self._current = part, until, stop
        return True

    def close(self) -> None:
        """See `SpanSource`; the files are gone then, and the input cannot be read again."""
        for run in self._runs:
            for file in (run.packets_file, run.payloads_file):
                if file is not None:
                    file.close()

    def _end_run(self, in_memory: bool) -> None:
        rows = in_order_of_time(joined(self._parts))
        self._parts, self._waiting, self._waiting_octets = [], 0, 0
        times = rows.packets["time_ns"]
        first, last = times[::_SMALL_SPAN].copy(), times[_SMALL_SPAN - 1 :: _SMALL_SPAN].copy()
        if len(last) < len(first):
            last = np.append(last, times[-1])
        if in_memory:
            self._runs.append(_Run(len(times), len(rows.payloads), first, last, rows, None, None))
            return
        packets_file, payloads_file = self._written(rows.packets), self._written(rows.payloads)
        self._runs.append(_Run(len(times), len(rows.payloads), first, last, None, packets_file, payloads_file))

    def _written(self, array: np.ndarray) -> IO[bytes]:
        try:
            file = tempfile.TemporaryFile(prefix="flowbeam-", dir=self._temp_dir, buffering=0)  # noqa: SIM115 - kept
            left = array.view(np.uint8).data
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            where = self._temp_dir or tempfile.gettempdir()
            reason = error.strerror or str(error)
            raise InputError(f"--temp_dir: {where} cannot hold the packets that have to be sorted: {reason}") from error
        return file

    def _read(self, run: _Run, at: int, until: int) -> Rows:
        if run.rows is not None:
            return run.rows.part(at, until)
        packets = np.empty(until - at, PACKET)
        _read_at(run.packets_file, at * PACKET.itemsize, packets)
        first, last = int(packets[0]["payload_at"]), packets[-1]
        ends = int(last["payload_at"]) + int(last["payload_captured"])
        payloads = np.empty(ends - first if run.payload_octets else 0, np.uint8)
        _read_at(run.payloads_file, first, payloads)
        return Rows(packets, payloads)


def _read_at(file: IO[bytes] | None, offset: int, array: np.ndarray) -> None:
    left = array.view(np.uint8).data
    while left and file is not None:
        count = os.preadv(file.fileno(), [left], offset)
        if not count:
            raise InputError("--temp_dir: a temporary file ended early; is something removing what lies there?")
        offset += count
        left = left[count:]


def _spans(run: _Run, source: int, part: int, step: int) -> np.ndarray:
    spans = np.zeros(-(-len(run.first_ns) // step), SPAN)
    spans["first_ns"] = run.first_ns[::step]
    spans["last_ns"] = np.append(run.last_ns[step - 1 :: step], run.last_ns[-1:])[: len(spans)]
    spans["start"] = np.arange(len(spans)) * step * _SMALL_SPAN
    spans["stop"] = np.minimum(spans["start"] + step * _SMALL_SPAN, run.packets)
    spans["packets"] = spans["stop"] - spans["start"]
    spans["source"], spans["part"], spans["in_order"] = source, part, 1
    return spans
