"""Live flows on one machine: a broker, a sensor that replays generated traffic as if it were now, and the main job.

`make live` runs it. Flows appear on the terminal and in `live/flows` until Ctrl-C, or SIGTERM: then the sensor ends its
stream, the job ends once it has read all and its files are complete, and the broker stops. A second signal kills all.
The broker is the Kafka that `make servers` has built; without it the queue is a folder that is watched.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

_TOP = Path(__file__).parents[1]
sys.path[:0] = [str(_TOP), str(_TOP / "tests")]

from servers.install import NotInstalled, installed  # noqa: E402
from servers.kafka import KafkaServer  # noqa: E402

from pipelines import companion  # noqa: E402

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_TOP)}

END_WITHIN_S = 30.0
"""So long the sensor, and then the job, may take to end; one that takes longer is told to stop, then killed."""

_TOPIC, _PARTITIONS = "packets", 2


class Demo:
    """The processes of the demo. The terminal's Ctrl-C does not reach them, and they do not outlive this one.

    Args:
        folder: Where flows go.
        packets: How many packets of traffic are made; they are replayed over and over.
        with_broker: Whether there may be one.
    """

    def __init__(self, folder: Path, packets: int, with_broker: bool) -> None:
        self._folder, self._packets, self._with_broker = folder, packets, with_broker
        self._running: list[subprocess.Popen[bytes]] = []
        self._asked = False

    def run(self) -> int:
        """Runs until it is told to stop, or a part of it ends by itself; the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowbeam-live-")))
            queue = self._queue(scratch, stack)
            _say(f"making {self._packets:,} packets of traffic")
            traffic = scratch / "traffic.pcap"
            made = self._start("generate", "--output", traffic, "--packets", self._packets, "--quiet")
            self._wait_for(made)
            if self._asked or made.poll():
                return self._stop()
            self._running.clear()
            replayed = ["--input", f"replay:{traffic}", "--shift_times", "--loop", "--sensor", "demo"]
            sensor = self._start("capture", *replayed, "--queue", queue, "--buffer_dir", scratch / "sensor", "--quiet")
            job = self._start(
                "flows",
                *("--runner=PrismRunner", "--streaming", "--input", queue, "--stop_at_end"),
                *("--idle_timeout_s", "5", "--tcp_linger_s", "1"),
                *("--output", "terminal:", "--output", f"parquet:{self._folder / 'flows'}"),
            )
            self._wait_for(sensor, job)
            return self._stop()

    def _queue(self, scratch: Path, stack: ExitStack) -> str:
        """The URL of a queue that is there."""
        if self._with_broker:
            try:
                installed("kafka")
            except NotInstalled:
                _say("no Kafka here (`make servers` builds one): the queue is a folder")
            else:
                _say("starting Kafka")
                broker = stack.enter_context(KafkaServer(scratch / "kafka"))
                broker.create_topic(_TOPIC, _PARTITIONS)
                return f"kafka://{broker.bootstrap}/{_TOPIC}"
        (scratch / "blocks").mkdir()
        return f"spool:{scratch / 'blocks'}"

    def _start(self, command: str, *arguments: object) -> "subprocess.Popen[bytes]":
        beside = [sys.executable, "-I", "-S", companion.__file__, str(os.getpid())]
        words = [sys.executable, "-m", f"pipelines.{command}", *map(str, arguments)]
        process = subprocess.Popen([*beside, *words], stdin=subprocess.DEVNULL, env=_ENVIRONMENT)
        self._running.append(process)
        return process

    def _wait_for(self, *processes: "subprocess.Popen[bytes]") -> None:
        """Until one of them ends, or all are to stop."""
        while not self._asked and all(process.poll() is None for process in processes):
            time.sleep(0.1)

    def _stop(self) -> int:
        """Ends all in the order in which they were started: the job by itself, if the sensor has ended its stream.

        Returns:
            0, unless something failed before, or had to be killed.
        """
        status = 1 if any(process.poll() for process in self._running) else 0
        before = None
        for process in self._running:
            if not (before == 0 and self._has_ended(process)):
                process.terminate()
            if not self._has_ended(process):
                process.kill()
            before = process.wait()
            if before not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):  # it was told before it had begun
                status = 1
        return status

    def _has_ended(self, process: "subprocess.Popen[bytes]") -> bool:
        try:
            process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self._asked:
            os._exit(128 + number)  # and with it whatever runs beside it
        self._asked = True
        _say("stopping: the sensor, the job when it has read all, the broker")


@contextmanager
def _in_front() -> Generator[None, None, None]:
    """Meanwhile the terminal's signals are for this process alone: make would call a Ctrl-C an error."""
    before = os.getpgrp()
    if not os.isatty(0) or before == os.getpid() or before != os.tcgetpgrp(0):
        yield  # no terminal, a shell that has put us in front already, or in the background
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # who is behind may not change who is in front
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # nobody would bring it back
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(0, before)


def _say(message: str) -> None:
    print(f"live: {message}", file=sys.stderr, flush=True)


def main() -> int:
    """The command; returns its exit status."""
    parser = ArgumentParser(description="Live flows of replayed traffic, on this machine.", allow_abbrev=False)
    parser.add_argument("--folder", type=Path, default=Path("live"), help="Flows go to flows in it. Default live.")
    parser.add_argument("--packets", type=int, default=100_000, help="Packets of traffic to make. Default 100000.")
    parser.add_argument("--no_broker", action="store_true", help="The queue is a folder, even where Kafka is.")
    options = parser.parse_args()
    with _in_front():
        return Demo(options.folder, options.packets, not options.no_broker).run()


if __name__ == "__main__":
    sys.exit(main())
