"""`terminal:`, or `terminal:?rows_per_s=50`: flows as they end, as rows for a person to watch.

    ended         from                   to                     protocol  packets        octets    duration  end
    13:00:01.785  10.0.0.1:47444         10.0.0.2:443           tcp            41        29,944      0.79 s  end

At most so many rows a second are shown, 20 unless told; a line says how many were not. Times are UTC.
"""

import contextlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from sinks import standard_output
from sinks.outputs import SinkContext, SinkUrl
from transforms.records import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE, InputError, Reject

DEFAULT_PLACE = "-"

_ROWS_PER_S = 20
_NOTICE_S = 1.0

_COLUMNS = (
    "flow_end_ns",
    "flow_start_ns",
    "src_ip",
    "src_port",
    "dst_ip",
    "dst_port",
    "protocol",
    "fwd_packets",
    "rev_packets",
    "fwd_ip_octets",
    "rev_ip_octets",
    "end_reason",
)

_HEADER = ("ended", "from", "to", "protocol", "packets", "octets", "duration", "end")
_WIDTHS = (12, 21, 21, 8, 7, 12, 10, 6)
_TO_THE_RIGHT = (4, 5, 6)
_STYLES = ("dim", "cyan", "magenta", "green", "", "", "dim", "yellow")

_PROTOCOLS = {
    ICMP: "icmp",
    TCP: "tcp",
    UDP: "udp",
    DCCP: "dccp",
    ICMPV6: "icmpv6",
    SCTP: "sctp",
    UDP_LITE: "udplite",
}

_WITH_PORTS = (TCP, UDP, DCCP, SCTP, UDP_LITE)

_ENDS = {1: "idle", 2: "active", 3: "end", 4: "forced", 5: "resources"}
"""Names of flowEndReason, as the summary has them."""


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `terminal:`.

    Raises:
        InputError: `rows_per_s` is no positive number, or there is another place than the terminal.
    """
    url.check_parameters("rows_per_s")
    if not url.on_standard_output:
        raise InputError(f"{url}: the terminal has no places; write terminal: or csv:{url.path}")
    rows = url.parameters.get("rows_per_s", str(_ROWS_PER_S))
    if not (rows.isascii() and rows.isdecimal() and int(rows)):
        raise InputError(f"{url}: rows_per_s={rows} is no positive number")
    return ShowFlows(context.job, int(rows))


class ShowFlows(beam.PTransform):
    """Shows final records on standard output, so many a second.

    Input: record batches of flows, bounded or not. Output: no rejects.
    """

    def __init__(self, job: str, rows_per_s: int) -> None:
        super().__init__()
        self.step = _Show(job, rows_per_s)

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the step that shows."""
        return flows | "Show" >> beam.ParDo(self.step)


class _Show(beam.DoFn):
    def __init__(self, job: str, rows_per_s: int) -> None:
        self._job = job
        self._rows_per_s = rows_per_s
        self._flows_shown = Metrics.counter("terminal", "flows_shown")
        self._flows_hidden = Metrics.counter("terminal", "flows_not_shown")

    def setup(self) -> None:
        with _opening:
            self._screen = _screens.setdefault(self._job, Screen(self._rows_per_s))

    def process(self, flows: pa.RecordBatch) -> Iterator[Reject]:
        final = flows.select(_COLUMNS).filter(pc.equal(flows["record_kind"], "final"))
        shown = self._screen.show(final)
        self._flows_shown.inc(shown)
        self._flows_hidden.inc(len(final) - shown)
        return iter(())

    def teardown(self) -> None:
        self._screen.tell_hidden()


class Screen:
    """The one place that a process shows flows in, for all its threads.

    Args:
        rows_per_s: The most rows a second.
        clock: Seconds that only grow.
        write: Takes whole lines.
    """

    def __init__(
        self,
        rows_per_s: int,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[bytes], None] = standard_output.write,
    ) -> None:
        self._rows_per_s = rows_per_s
        self._clock = clock
        self._write = write
        self._lock = threading.Lock()
        self._left = float(rows_per_s)
        self._at = clock()
        self._hidden = 0
        self._notice: threading.Timer | None = None
        self._widths = list(_WIDTHS)
        self._headed = False

    def show(self, flows: pa.RecordBatch) -> int:
        """Shows the first of `flows`, as many as may be shown now; returns their number.

        Raises:
            InputError: Standard output cannot be written.
        """
        with self._lock:
            now = self._clock()
            self._left = min(self._left + (now - self._at) * self._rows_per_s, self._rows_per_s)
            self._at = now
            shown = min(len(flows), int(self._left))
            self._left -= shown
            if shown:
                rows = list(_rows(flows.slice(0, shown)))
                if not self._headed:
                    self._headed = True
                    rows.insert(0, _HEADER)
                self._write(self._rendered(rows))
            self._hidden += len(flows) - shown
            if self._hidden and self._notice is None:
                self._notice = threading.Timer(_NOTICE_S, self._tell_later)
                self._notice.daemon = True
                self._notice.start()
        return shown

    def tell_hidden(self) -> None:
        """Says how many flows were not shown since it was last said."""
        with self._lock:
            self._notice = None
            if self._hidden:
                self._write(f"{'':{_WIDTHS[0]}}  … {self._hidden:,} more\n".encode())
                self._hidden = 0

    def _tell_later(self) -> None:
        with contextlib.suppress(InputError):  # of a terminal that is gone the next row will tell
            self.tell_hidden()

    def _rendered(self, rows: list[tuple[str, ...]]) -> bytes:
        """The rows in columns that only grow wider."""
        from rich.console import Console  # heavy: not before there is a flow
        from rich.text import Text

        for place, cells in enumerate(zip(*rows, strict=True)):
            self._widths[place] = max(self._widths[place], *map(len, cells))
        console = Console(file=io.StringIO(), force_terminal=sys.stdout.isatty())
        for row in rows:
            line = Text()
            for place, cell in enumerate(row):
                width = self._widths[place]
                aligned = cell.rjust(width) if place in _TO_THE_RIGHT else cell.ljust(width)
                line.append(aligned, "bold" if row is _HEADER else _STYLES[place]).append("  ")
            line.rstrip()
            console.print(line, soft_wrap=True)
        return console.file.getvalue().encode()  # type: ignore[attr-defined]


def _rows(flows: pa.RecordBatch) -> Iterator[tuple[str, ...]]:
    """The cells of each flow."""
    for flow in flows.to_pylist():
        yield (
            str(np.datetime64(flow["flow_end_ns"], "ns"))[11:23],
            _endpoint(flow["src_ip"], flow["src_port"], flow["protocol"]),
            _endpoint(flow["dst_ip"], flow["dst_port"], flow["protocol"]),
            _PROTOCOLS.get(flow["protocol"], str(flow["protocol"])),
            f"{flow['fwd_packets'] + flow['rev_packets']:,}",
            f"{flow['fwd_ip_octets'] + flow['rev_ip_octets']:,}",
            f"{(flow['flow_end_ns'] - flow['flow_start_ns']) / 1e9:,.2f} s",
            _ENDS.get(flow["end_reason"], ""),
        )


def _endpoint(address: str, port: int, protocol: int) -> str:
    if protocol not in _WITH_PORTS:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


_opening = threading.Lock()
_screens: dict[str, Screen] = {}
"""The screen of each job in this process."""
