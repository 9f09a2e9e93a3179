"""The figures of a finished run, from the pipeline's counters."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from apache_beam.metrics.metric import MetricsFilter

from pipelines.inputs import DAMAGE
from transforms.records import InputError

_REJECTED = "packets_rejected"
_REASONS = "flows_ended_"
_NAMESPACES = ("read", _REJECTED, "assemble")
_COUNTS = ("packets_read", "packets_in_flows", "rejects", "flows", "end_reasons", "notes")


class Summary(NamedTuple):
    """What a run did.

    Attributes:
        packets_read: Packets in the input.
        packets_in_flows: Packets that flows count.
        rejects: Packets and pieces rejected, by reason.
        flows: Flows, interim records not counted.
        end_reasons: Flows by why they ended.
        first_packet_ns: Time of the first packet; None without packets.
        last_packet_ns: Time of the last packet.
        seconds: How long the pipeline ran.
        notes: Other counters of reading and assembling that are not zero.
        damage: A line for each input, or part of one, that could not be read.
        caveat: What else is to be known of the figures; None if they are of all that was done.
        known: Whether there are any: a runner that was stopped, or is too busy, may tell none, and `caveat` says so.
            Counts are null in the file then.
    """

    packets_read: int
    packets_in_flows: int
    rejects: dict[str, int]
    flows: int
    end_reasons: dict[str, int]
    first_packet_ns: int | None
    last_packet_ns: int | None
    seconds: float
    notes: dict[str, int]
    damage: tuple[str, ...]
    caveat: str | None = None
    known: bool = True

    @classmethod
    def untold(cls, why: str, seconds: float) -> "Summary":
        """Of a run that nobody tells the figures of."""
        return cls._of({}, [], seconds)._replace(caveat=why, known=False)

    @classmethod
    def of(cls, result: Any, seconds: float, whole: bool = True) -> "Summary":
        """Reads the counters of a pipeline's result.

        Args:
            result: What Beam gave.
            seconds: How long it ran.
            whole: The run came to its end, so that counters which are not there are 0; else they are not known.
        """
        query = result.metrics().query(MetricsFilter().with_namespaces(list(_NAMESPACES)))
        counters: dict[tuple[str, str], int] = {}
        for metric in query["counters"]:
            name = (metric.key.metric.namespace, metric.key.metric.name)
            if metric.committed is not None:
                counters[name] = counters.get(name, 0) + metric.committed
        if not whole and not counters:
            return cls.untold("the runner told none", seconds)
        spans = [tuple(map(int, span.split())) for metric in query["string_sets"] for span in metric.committed or ()]
        return cls._of(counters, spans, seconds)

    @classmethod
    def of_flink(cls, counters: dict[str, int], seconds: float, caveat: str | None) -> "Summary":
        """Takes counters as Flink names them, `namespace_name`, and what is to be said of them."""
        found = {
            (namespace, name.removeprefix(f"{namespace}_")): n
            for namespace in _NAMESPACES
            for name, n in counters.items()
            if name.startswith(f"{namespace}_") and not name.startswith("read_queue_")
        }
        return cls._of(found, [], seconds)._replace(caveat=caveat)

    @classmethod
    def _of(cls, counters: dict[tuple[str, str], int], spans: Sequence[tuple[int, ...]], seconds: float) -> "Summary":
        read = counters.pop(("read", "packets_read"), 0)
        in_flows = counters.pop(("assemble", "packets_in_flows"), 0)
        rejected = {name: n for (space, name), n in sorted(counters.items()) if space == _REJECTED and n}
        ends = {name[len(_REASONS) :]: n for (_, name), n in counters.items() if name.startswith(_REASONS) and n}
        ends.pop("open", None)
        return cls(
            packets_read=read,
            packets_in_flows=in_flows,
            rejects=rejected,
            flows=sum(ends.values()),
            end_reasons=ends,
            first_packet_ns=min((span[0] for span in spans), default=None),
            last_packet_ns=max((span[1] for span in spans), default=None),
            seconds=round(seconds, 3),
            notes={
                name: n
                for (space, name), n in sorted(counters.items())
                if n and space != _REJECTED and not name.startswith((_REASONS, DAMAGE))
            },
            damage=tuple(sorted(name.removeprefix(DAMAGE) for _, name in counters if name.startswith(DAMAGE))),
        )

    def write(self, path: str) -> None:
        """Writes the figures as JSON; the file appears whole.

        Raises:
            InputError: It cannot be written.
        """
        hidden = hidden_beside(path)
        try:
            figures = self._asdict()
            if not self.known:
                figures |= dict.fromkeys(_COUNTS)
            with open(hidden, "w", encoding="utf-8") as file:
                json.dump(figures, file, indent=2)
                file.write("\n")
            os.replace(hidden, path)
        except OSError as error:
            raise InputError(f"--summary {path}: cannot be written: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(hidden)

    def show(
        self, outputs: Iterable[str], rejects_folder: str, query: str | None, on_standard_error: bool = False
    ) -> None:
        """Prints the figures for a person; no one needs to read them to their end.

        Args:
            outputs: Where flows are.
            rejects_folder: Where rejects are, if there are any.
            query: A command to try; None if there is none.
            on_standard_error: Standard output has the flows.

        Raises:
            InputError: Standard output cannot be written.
        """
        rows = self._told() if self.known else []
        if self.caveat:
            rows.append(("figures", self.caveat if self.known else f"not known: {self.caveat}"))
        rows.append(("output", ", ".join(outputs)))
        if any(name != "not_ip" for name in self.rejects):
            rows.append(("rejected", rejects_folder))
        if query and self.flows:
            rows.append(("try", query))
        try:
            lines = "".join(f"{name:<9}{text}\n" for name, text in rows)
            print(lines, end="", flush=True, file=sys.stderr if on_standard_error else sys.stdout)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more is tried at the exit
            if not isinstance(error, BrokenPipeError):
                raise InputError(f"standard output: cannot be written: {error.strerror or error}") from error

    def _told(self) -> list[tuple[str, str]]:
        rows = [
            ("packets", f"{self.packets_read:,} read, {self.packets_in_flows:,} in flows"),
            ("flows", f"{self.flows:,}" + _listed(self.end_reasons, " ended by ")),
            ("rejects", f"{sum(self.rejects.values()):,}" + _listed(self.rejects, ": ")),
        ]
        if self.notes:
            rows.append(("noted", _listed(self.notes, "")))
        if self.first_packet_ns is not None and self.last_packet_ns is not None:
            rows.append(("capture", f"{_utc(self.first_packet_ns)} to {_utc(self.last_packet_ns)}"))
        speed = self.packets_read / self.seconds if self.seconds else 0.0
        return [*rows, ("speed", f"{self.seconds:.2f} s, {speed:,.0f} packets/s")]


def check_path(path: str) -> None:
    """Refuses a path that no summary can be written to, before the run.

    Raises:
        InputError: One line with the reason.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise InputError(f"--summary {path}: is a folder; name a file")
    if not os.path.isdir(folder):
        raise InputError(f"--summary {path}: there is no folder {folder}; make it or name another file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--summary {path}: cannot write in {folder}; make it writable or name another file")


def hidden_beside(path: str) -> str:
    """What the file is called until it is whole."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.partial-{os.getpid()}")


def _listed(counts: dict[str, int], before: str) -> str:
    return before + ", ".join(f"{name} {n:,}" for name, n in counts.items()) if counts else ""


def _utc(time_ns: int) -> str:
    import numpy as np

    return str(np.datetime64(time_ns, "ns"))[:23] + "Z"
