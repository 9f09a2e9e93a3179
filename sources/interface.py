"""Live capture from a network interface of Linux: `interface:eth0`.

Packets come through one or several packet rings (`packet_ring`), are parsed by the same kernels as those of files, and
carry the kernel's own times in nanoseconds. Both directions are captured; a loopback shows each packet once. Where
several packets were merged by the card or by Linux (GRO, TSO), the merged one is what is seen, as with any capture.
"""

import errno
import logging
import os
import select
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sources.bpf import WHOLE_PACKETS, compile_live_filter
from sources.headers import HeaderSettings
from sources.live import Chunk
from sources.packet_ring import (
    BLOCK_OCTETS,
    FANOUT_MODES,
    PacketRing,
    RingSettings,
    Taken,
    interface_index,
    is_there,
    is_up,
    keep_all,
    link_type,
    open_socket,
    without_outgoing,
)
from sources.rows import in_order_of_time, joined
from transforms.records import InputError

_logger = logging.getLogger(__name__)

_NS_PER_MS, _NS_PER_S = 1_000_000, 1_000_000_000
_LATE_BLOCK_NS = 50 * _NS_PER_MS
_LARGEST_RING = 1 << 36
_CHECK_S = 1.0
_REOPEN_S = 0.5


@dataclass(eq=False)
class InterfaceSettings:
    """What is captured, and how.

    Attributes:
        name: The interface.
        rings: Rings that share its packets; more than one helps where one core cannot keep up.
        fanout: How packets are spread over several rings, of `FANOUT_MODES`; by `hash` all of a flow goes to one.
        promiscuous: Whether the card passes on what is for others too, as at a mirror port.
        filter: An expression of `pcap-filter(7)`; Linux drops what it does not accept. Empty accepts everything.
        snaplen: Octets of each packet to keep. Lengths are those of the line in any case.
        ring_octets: Memory of each ring.
        block_ms: Packets are handed over after so long, or when a block of a mebibyte is full.
        return_s: An interface that vanishes is waited for so long.
        headers: What of a packet is kept in its row.

    Raises:
        InputError: If a setting makes no sense.
    """

    name: str
    rings: int = 1
    fanout: str = "hash"
    promiscuous: bool = True
    filter: str = ""
    snaplen: int = WHOLE_PACKETS
    ring_octets: int = 64 << 20
    block_ms: int = 20
    return_s: float = 30
    headers: HeaderSettings = field(default_factory=HeaderSettings)

    def __post_init__(self) -> None:
        if not 1 <= self.rings <= 64:
            raise InputError(f"--rings: {self.rings} is not between 1 and 64")
        if self.fanout not in FANOUT_MODES:
            raise InputError(f"--fanout: unknown mode {self.fanout!r}; choose of {', '.join(FANOUT_MODES)}")
        if not 14 <= self.snaplen <= WHOLE_PACKETS:
            raise InputError(f"--snaplen: {self.snaplen} is not between 14 and {WHOLE_PACKETS}")
        if not 2 * BLOCK_OCTETS <= self.ring_octets <= _LARGEST_RING:
            raise InputError(f"--ring_octets: {self.ring_octets} is not between {2 * BLOCK_OCTETS} and {_LARGEST_RING}")
        if not 1 <= self.block_ms <= 1000:
            raise InputError(f"--block_ms: {self.block_ms} is not between 1 and 1000")


class InterfaceInput:
    """A `LiveInput` that captures from an interface; it may go down and come back.

    A silent line's `observed_ns` is the clock less what Linux may hold back: a packet waits in a block that is not full
    for up to two periods of `block_ms`. It is the least of all rings', and goes back only when the clock is set back.
    """

    def __init__(self, settings: InterfaceSettings) -> None:
        """Opens the interface and begins to capture.

        Raises:
            InputError: There is no such interface, no permission to capture, or the filter is wrong.
        """
        self._settings = settings
        self._hold_ns = 2 * settings.block_ms * _NS_PER_MS + _LATE_BLOCK_NS
        self._time = ObservedTime(self._hold_ns)
        self._threads = ThreadPoolExecutor(settings.rings, "flowbeam-ring") if settings.rings > 1 else None
        self._index = 0
        self._rings: list[PacketRing] = []
        self._poll = select.poll()
        self._down = False
        self._gone_at: float | None = None
        self._checked_at = 0.0
        self._card = CardDrops(_statistics(settings.name))
        try:
            self._open()
        except InputError:
            self.close()
            raise

    def read(self, wait_s: float) -> Chunk:
        """The next packets; waits for them at most so long.

        Raises:
            InputError: The interface is gone and did not come back, or cannot be opened again.
        """
        quiet_ns = self._time.quiet()
        taken = self._take()
        if not any(part.last_ns for part in taken):
            self._wait(wait_s)
            quiet_ns = self._time.quiet()
            taken = self._take()
        observed_ns = min((_observed(part, quiet_ns) for part in taken), default=quiet_ns)
        parts = [part.rows for part in taken if len(part.rows.packets)]
        packets, payloads = parts[0] if len(parts) == 1 else in_order_of_time(joined(parts))
        rejects = sum((part.rejects for part in taken), Counter[str]())
        dropped = sum(ring.newly_dropped() for ring in self._rings) + self._card.newly_dropped()
        return Chunk(packets, payloads, self._time.at(observed_ns), dict(rejects), dropped)

    def close(self) -> None:
        """Stops capturing."""
        self._close_rings()
        self._card.close()
        if self._threads is not None:
            self._threads.shutdown()

    def _take(self) -> list[Taken]:
        if self._threads is None:
            return [ring.take() for ring in self._rings]
        return list(self._threads.map(PacketRing.take, self._rings))

    def _open(self) -> None:
        settings = self._settings
        sockets = [open_socket(settings.name)]
        try:
            self._index = interface_index(sockets[0], settings.name)
            link, loopback = link_type(sockets[0], settings.name)
            program = keep_all(settings.snaplen)
            if settings.filter:
                program = compile_live_filter(settings.filter, settings.name, link, settings.snaplen)
            if loopback:
                program = without_outgoing(program)
            ring_settings = RingSettings(
                settings.ring_octets, settings.block_ms, settings.promiscuous, program, settings.headers
            )
            sockets += [open_socket(settings.name) for _ in range(settings.rings - 1)]
            while sockets:
                self._rings.append(PacketRing(sockets[0], settings.name, self._index, link, ring_settings))
                del sockets[0]
            self._start()
        finally:
            for sock in sockets:
                sock.close()

    def _start(self) -> None:
        group = None
        for ring in self._rings:
            ring.bind()
            if len(self._rings) > 1:
                group = ring.join(group, self._settings.fanout)
        for ring in self._rings:
            ring.start()
            self._poll.register(ring.socket, select.POLLIN | select.POLLERR)
        self._down = not is_up(self._rings[0].socket, self._index)
        if self._down:
            _logger.warning("interface %s is down; waiting for it", self._settings.name)

    def _close_rings(self) -> None:
        for ring in self._rings:
            ring.close()
        self._rings, self._poll = [], select.poll()

    def _wait(self, wait_s: float) -> None:
        """Waits until a ring has something or the time is over; looks after the interface."""
        if self._gone_at is not None:
            time.sleep(min(wait_s, _REOPEN_S))
            self._reopen(self._gone_at)
            return
        failed = any(event & select.POLLERR for _, event in self._poll.poll(wait_s * 1000))
        now = time.monotonic()
        if failed or (self._down and now - self._checked_at >= _CHECK_S):
            self._checked_at = now
            self._look_after([ring.error() for ring in self._rings])

    def _look_after(self, errors: list[int]) -> None:
        """What became of the interface. One that is down comes up again by itself; Linux goes on where it was."""
        sock = self._rings[0].socket
        name = self._settings.name
        other = [number for number in errors if number not in (0, errno.ENETDOWN)]
        if not is_there(sock, self._index):
            self._gone_at = time.monotonic()
            _logger.warning("interface %s is gone; waiting for it to come back", name)
        elif other:
            raise InputError(f"interface:{name}: capturing failed: {os.strerror(other[0])}")
        elif is_up(sock, self._index) == self._down:
            self._down = not self._down
            _logger.warning("interface %s is down; waiting for it" if self._down else "interface %s is up again", name)

    def _reopen(self, gone_at: float) -> None:
        if self._rings and time.monotonic() - gone_at < self._hold_ns / _NS_PER_S:
            return  # what was captured last is still to be handed over
        self._close_rings()
        try:
            self._open()
        except InputError as error:
            self._close_rings()
            if isinstance(error.__cause__, PermissionError):
                raise InputError(
                    f"interface:{self._settings.name}: is gone, and its rights to open it again were given up; start "
                    f"the sensor again"
                ) from error
            if time.monotonic() - gone_at >= self._settings.return_s:
                raise InputError(
                    f"interface:{self._settings.name}: is gone and did not come back within "
                    f"{self._settings.return_s:g} s"
                ) from error
        else:
            self._gone_at = None
            self._card.close()
            self._card = CardDrops(_statistics(self._settings.name))
            _logger.warning("interface %s is back", self._settings.name)


def _observed(part: Taken, quiet_ns: int) -> int:
    """Up to when a ring has given all that it will: to its last packet, and to `quiet_ns` if Linux had no more."""
    if not part.last_ns:
        return quiet_ns
    return max(part.last_ns, quiet_ns) if part.drained else part.last_ns


def _clocks() -> tuple[int, int, int]:
    """The steady clock, the clock, and the steady clock again."""
    return time.monotonic_ns(), time.time_ns(), time.monotonic_ns()


class ObservedTime:
    """Up to when everything was seen: moves on with the clock and never back, unless the clock was set back.

    The clock was set back where its distance to the steady clock shrinks: both run at the same rate.
    """

    def __init__(self, quiet_ns: int, clocks: Callable[[], tuple[int, int, int]] = _clocks) -> None:
        """A packet is seen at most `quiet_ns` after its time, where the line is silent."""
        self._quiet_ns = quiet_ns
        self._clocks = clocks
        self._least_ahead: int | None = None
        self._floor: int | None = None

    def quiet(self) -> int:
        """The time before which a line that is silent has nothing more; to be asked before looking at the line."""
        before, now, after = self._clocks()
        if self._least_ahead is not None and now - before < self._least_ahead:
            self._floor = None
        self._least_ahead = now - after
        return now - self._quiet_ns

    def at(self, observed_ns: int) -> int:
        """The time that was observed, if `observed_ns` is what the line says now."""
        self._floor = observed_ns if self._floor is None else max(self._floor, observed_ns)
        return self._floor


def _statistics(name: str) -> str:
    return f"/sys/class/net/{name}/statistics"


class CardDrops:
    """Packets that the card had no room for, as its driver counts them (what libpcap calls `ps_ifdrop`)."""

    _COUNTERS = ("rx_missed_errors", "rx_fifo_errors")

    def __init__(self, folder: str) -> None:
        """Opens the counters of an interface, each a file in its folder; the ring's own are enough without them."""
        self._files: list[int] = []
        for counter in self._COUNTERS:
            try:
                self._files.append(os.open(f"{folder}/{counter}", os.O_RDONLY | os.O_CLOEXEC))
            except OSError:  # a network namespace without a /sys of its own
                continue
        self._told = 0
        self._told = self._now()
        self._asked_at = time.monotonic()

    def _now(self) -> int:
        try:
            return sum(int(os.pread(file, 32, 0)) for file in self._files)
        except OSError:  # the interface is gone
            return self._told

    def newly_dropped(self) -> int:
        """How many since this was last asked; looked at once a second."""
        if time.monotonic() - self._asked_at < _CHECK_S:
            return 0
        self._asked_at = time.monotonic()
        before, self._told = self._told, self._now()
        return max(0, self._told - before)

    def close(self) -> None:
        """Closes the counters."""
        for file in self._files:
            os.close(file)
