"""A spool as a sensor writes it: files are complete within a second or so, and a full disk is waited for."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from queues import Damaged
from queues.object_files import BLOCK_OCTETS_MOST, PACK, ContainerReader
from queues.put_order import PutOrder, Ticket
from queues.spool_files import OpenFile, SpoolName, name_of, names_in, parsed, remove_orphans, sensor_text
from transforms import avro
from transforms.records import InputError, Stream

_AGAIN_S = 0.5


@dataclass
class _Filling:
    """A file that is not complete yet, and when it shall be.

    Attributes:
        full: Nothing more goes into it.
        refused: It could not be given its name.
    """

    file: OpenFile
    due_s: float
    full: bool = False
    refused: bool = False
    ticket: Ticket = field(default_factory=Ticket)


class LiveSpool:
    """Writes blocks into files of a folder, one open file for each stream; a block is settled with its file.

    A sensor that was killed hands over again what was not settled. What lay in files that have no name yet is removed
    then; blocks that are in complete files all the same are not written twice.

    Args:
        folder: Made if it is not there.
        codec: How blocks are packed: `null`, `deflate` or `zstandard`.
        file_octets: A file is complete once it has as many.
        file_max_age_s: And so long after its first block.
        partitions: How many parts the sensor shall write.
        clock: Seconds that only grow.

    Attributes:
        partitions: Number of parts.
        problem: Why nothing is written just now; None while all is well.
        message_octets_most: The largest block.

    Raises:
        OSError: The folder cannot be made or listed.
    """

    message_octets_most = BLOCK_OCTETS_MOST

    def __init__(
        self,
        folder: Path,
        codec: str,
        file_octets: int,
        file_max_age_s: float,
        partitions: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.partitions = partitions
        self.problem: str | None = None
        self._folder, self._codec, self._pack = folder, codec, PACK[codec]()
        self._file_octets, self._max_age_s, self._clock = file_octets, file_max_age_s, clock
        self._order = PutOrder()
        self._filling: dict[Stream, _Filling] = {}
        self._again_s = 0.0
        self._there: dict[Stream, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._last_files: dict[tuple[str, int, int], SpoolName] = {}
        for name in filter(None, map(parsed, names_in(folder))):
            self._last_files[name.sensor, name.epoch, name.partition] = name
        self._sensors: set[str] = set()

    def put(self, message: bytes, partition: int, sensor: str) -> bool:
        """Appends a block to its stream's file; False while the disk takes nothing."""
        if len(message) > BLOCK_OCTETS_MOST:
            raise InputError(f"a block of {len(message):,} octets is too large for a spool; lower --block_packets")
        self._complete_due()
        if self._clock() < self._again_s:
            return False
        header = avro.decode_header(message)
        try:
            if sensor not in self._sensors:
                remove_orphans(self._folder, sensor)
                self._sensors.add(sensor)
            if header.sequence < self._there_before(header.stream):
                self._order.put(Ticket(settled=True))
                return True
            filling = self._filling_of(header.stream, header.sequence)
            if filling is None:
                return False
            filling.file.append(self._pack(message[avro.HEADER_OCTETS :]))
        except OSError as error:
            self._wait_for(error)
            return False
        self.problem = None
        self._order.put(filling.ticket)
        filling.full = header.end or filling.file.octets >= self._file_octets
        if filling.full:
            self._complete(header.stream)
        return True

    def settled(self, wait_s: float) -> int:
        """How many blocks are in complete files; see `LiveWriter`."""
        before = self._order.settled
        until_s = self._clock() + wait_s
        while True:
            self._complete_due()
            now_s = self._clock()
            if self._order.settled > before or now_s >= until_s:
                return self._order.settled
            due_s = min((one.due_s for one in self._filling.values()), default=until_s)
            time.sleep(max(0.001, min(until_s, due_s) - now_s))

    def close(self) -> None:
        """Completes the files that can be completed now."""
        for stream in list(self._filling):
            if not self._complete(stream):
                self._filling.pop(stream).file.discard()

    def _filling_of(self, stream: Stream, sequence: int) -> _Filling | None:
        """The open file of a stream; None if a full one still waits for its name."""
        filling = self._filling.get(stream)
        if filling is not None and filling.full and not self._complete(stream):
            return None
        filling = self._filling.get(stream)
        if filling is None:
            file = OpenFile(self._folder, name_of(stream, sequence), self._codec)
            filling = self._filling[stream] = _Filling(file, self._clock() + self._max_age_s)
        return filling

    def _complete_due(self) -> None:
        now_s = self._clock()
        for stream in [stream for stream, one in self._filling.items() if one.due_s <= now_s]:
            self._complete(stream)

    def _complete(self, stream: Stream) -> bool:
        filling = self._filling[stream]
        try:
            filling.file.complete()
        except OSError as error:
            self._wait_for(error)
            filling.full, filling.refused, filling.due_s = True, True, self._again_s
            return False
        if filling.refused:
            self.problem = None
        del self._filling[stream]
        filling.ticket.settled = True
        return True

    def _wait_for(self, error: OSError) -> None:
        self.problem = f"{self._folder}: cannot be written to: {error.strerror or error}"
        self._again_s = self._clock() + _AGAIN_S

    def _there_before(self, stream: Stream) -> int:
        """The first number of a stream that was in no complete file when this writer was opened."""
        if stream not in self._there:
            last = self._last_files.get((sensor_text(stream.sensor), stream.epoch, stream.partition))
            self._there[stream] = 0 if last is None else _behind(self._folder / last.text, last.sequence)
        return self._there[stream]


def _behind(path: Path, first: int) -> int:
    """The number behind the last block of a file."""
    behind = first
    try:
        with open(path, "rb") as file:
            for message in ContainerReader(str(path), file).messages():
                behind = max(behind, avro.decode_header(message.octets).sequence + 1)
    except FileNotFoundError:
        return 0
    except (Damaged, avro.BlockDecodeError):  # what it lost comes again, if the sensor still has it
        return behind
    return behind
