"""Generates a capture file, and if asked for the labels of its flows."""

import contextlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sources.generate.frames import LONGEST_RECORD, write_frames
from sources.generate.labels import label_writer, labels
from sources.generate.profiles import profile_named
from sources.generate.sessions import SECOND
from sources.generate.timeline import timeline
from transforms.records import InputError

_CHUNK_PACKETS = 4_096
_ETHERNET = 1
_FIRST_START_NS, _LAST_START_NS = 0, (1 << 31) * SECOND


@dataclass(frozen=True)
class GenerateSettings:
    """What to generate.

    Attributes:
        output: The capture file; pcapng of nanoseconds if its name ends in .pcapng, otherwise classic pcap of
            microseconds.
        packets: How many, exactly.
        seed: The same seed gives the same octets, with the same versions of this program and numpy.
        profile: A name of `profiles.PROFILES`.
        flows: About how many flows; only for the profile `bulk`.
        labels: A CSV file for the labels of the flows; none if empty.
        start_ns: Time of the capture's start, ns since the Unix epoch, whole microseconds for classic pcap.
    """

    output: str
    packets: int
    seed: int = 1
    profile: str = "office"
    flows: int | None = None
    labels: str = ""
    start_ns: int = 1_767_600_000 * SECOND

    def __post_init__(self) -> None:
        profile_named(self.profile)
        if not self.output:
            raise InputError("--output: name the capture file to write")
        if self.packets < 1:
            raise InputError(f"--packets={self.packets}: must be at least 1")
        if self.seed < 0:
            raise InputError(f"--seed={self.seed}: must not be negative")
        if self.flows is not None and self.profile != "bulk":
            raise InputError(f"--flows={self.flows}: only --profile=bulk has a settable number of flows")
        if self.flows is not None and not 1 <= self.flows <= self.packets:
            raise InputError(f"--flows={self.flows}: must be from 1 to the number of packets, {self.packets}")
        if not _FIRST_START_NS <= self.start_ns < _LAST_START_NS:
            raise InputError("--start: must be a time from 1970 to 2037")
        if self.labels and os.path.abspath(self.labels) == os.path.abspath(self.output):
            raise InputError(f"--labels={self.labels}: is the capture file itself")

    @property
    def is_pcapng(self) -> bool:
        """Whether the capture is pcapng."""
        return self.output.endswith(".pcapng")


class Generated(NamedTuple):
    """What was generated."""

    packets: int
    flows: int
    frame_octets: int
    seconds: float


def generate(settings: GenerateSettings, on_progress: Callable[[int], None] | None = None) -> Generated:
    """Writes the capture and the labels; both appear under their names when they are complete.

    Args:
        settings: What to generate.
        on_progress: Called with the number of packets written so far.

    Raises:
        InputError: A file cannot be written.
    """
    packets = flows = frame_octets = last_ns = 0
    buffers = np.empty((2, min(_CHUNK_PACKETS, settings.packets) * LONGEST_RECORD), np.uint8)
    profile, tick_ns = profile_named(settings.profile), 1 if settings.is_pcapng else 1_000
    with contextlib.ExitStack() as files:
        truth = None
        if settings.labels:
            truth = files.enter_context(label_writer(files.enter_context(_appearing(settings.labels))))
        capture = files.enter_context(io.FileIO(files.enter_context(_appearing(settings.output)), "w"))
        writer = files.enter_context(ThreadPoolExecutor(1))  # one buffer is filled while the other is written
        written = writer.submit(_write_all, capture, memoryview(_file_header(settings.is_pcapng)))
        for segments, sessions in timeline(profile, settings.packets, settings.seed, settings.flows, tick_ns):
            flows += int(np.count_nonzero(segments["first"]))
            if truth:
                truth.write_batch(labels(segments, sessions, settings.start_ns))
            for at in range(0, len(segments), _CHUNK_PACKETS):
                chunk = segments[at : at + _CHUNK_PACKETS]
                out = buffers[0]
                end, wire_octets = write_frames(chunk, sessions, settings.start_ns, settings.is_pcapng, out)
                written.result()
                written = writer.submit(_write_all, capture, out[:end].data)
                buffers = buffers[::-1]
                packets, frame_octets = packets + len(chunk), frame_octets + wire_octets
                last_ns = int(chunk["time_ns"][-1])
                if on_progress:
                    on_progress(packets)
        written.result()
    return Generated(packets, flows, frame_octets, last_ns / SECOND)


def _file_header(is_pcapng: bool) -> bytes:
    """The section and interface blocks of pcapng, or the header of classic pcap."""
    if not is_pcapng:
        return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, _ETHERNET)
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    nanoseconds = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)  # if_tsresol, end of options
    interface = struct.pack("<IIHHI", 1, 20 + len(nanoseconds), _ETHERNET, 0, 262_144)
    return section + interface + nanoseconds + struct.pack("<I", 20 + len(nanoseconds))


def _write_all(capture: io.FileIO, view: memoryview) -> None:
    """Writes all of a buffer; an unbuffered file may take it in pieces."""
    while len(view):
        view = view[capture.write(view) or 0 :]


@contextlib.contextmanager
def _appearing(path: str) -> Iterator[str]:
    """The name of a hidden file beside `path`, which takes its name if all goes well and vanishes otherwise.

    Raises:
        InputError: The file system refuses.
    """
    folder, name = os.path.split(path)
    hidden = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        yield hidden
        os.replace(hidden, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(hidden)
