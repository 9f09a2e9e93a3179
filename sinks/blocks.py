"""The step that writes to a server: blocks of flows, tried again with patience, written aside if that is wanted.

A sink brings a `BlockWriter` and what opens it on a worker; retries, counters, rejects and blocks that could not be
sent are the same for all of them.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from queues import server_secrets
from sinks import unsent
from sinks.outputs import SinkContext, SinkUrl
from transforms.records import InputError, Reject

_log = logging.getLogger(__name__)

BLOCK_ROWS = 8192
"""Batches of a bundle are joined, or cut, to so many records."""

UNDER_WAY_OCTETS = 64 << 20
"""Blocks under way hold no more together, or there is one: then the next waits."""

PROBE_S = 5.0
"""While a server is known to be down, and blocks are written aside, one of them is tried so often."""

_WAITS_S = (0.1, 10.0)
"""Waits between tries are random, up to the first of these at the beginning and up to the second later."""


class Unavailable(Exception):
    """A connection was lost, or the server has too much to do: the block can be tried again.

    Attributes:
        after_s: How long the server asks to wait.
    """

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Counted(NamedTuple):
    """Something else that a sink counts: a plural noun with a past participle, and how many."""

    name: str
    number: int


LEFT_OUT = "records_left_out"
"""What a writer counts so is not for its output: neither written nor refused."""


class BlockWriter(Protocol):
    """What a sink does with a block. Writing the same records again changes nothing."""

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject | Counted]:
        """Writes a block; when the iterator ends, the server has it for good.

        Yields the records that the server refused for what they contain, each as a `Reject`.

        Raises:
            Unavailable: All of the block must be tried again.
            InputError: It will never be accepted, whatever the number of tries.
        """

    def close(self) -> None:
        """Gives the connection up."""


OpenWriter = Callable[[], BlockWriter]
"""Opens the writer on a worker: it is pickled. It may raise what `write` raises."""


class Sent(NamedTuple):
    """What became of a block.

    Attributes:
        written: Records that the server has.
        aside: Records that were written aside.
        rejects: Records that it refused.
        counts: What else the sink counted.
        tries: How often it was tried.
        milliseconds: How long the last try took.
    """

    written: int
    aside: int
    rejects: list[Reject]
    counts: Counter[str]
    tries: int
    milliseconds: int


class _Health:
    """Whether a server is known to be down, for all steps of this process that write to it."""

    def __init__(self) -> None:
        self.is_down = False
        self.is_told = False
        self.probe_at = 0.0


_healths: dict[tuple[str, str], _Health] = {}


class BlockSender:
    """Sends blocks and never gives up before its time. `send` may be called by several threads if `write` may.

    Args:
        url: The output.
        context: Of the job: `retry_s` is the time, and `unsent` the folder for what could not be sent; without one,
            that is an error.
        open_writer: Opens the writer, with the first block.
        secrets: Where its secrets are, as `server_secrets.references` told where the pipeline was built.
    """

    def __init__(
        self, url: SinkUrl, context: SinkContext, open_writer: OpenWriter, secrets: Mapping[str, str] | None = None
    ) -> None:
        server_secrets.refer(secrets or {})
        self._url = url
        self._context = context
        self._open_writer = open_writer
        self._writer: BlockWriter | None = None
        self._opening = threading.Lock()
        self._stopped = threading.Event()
        self._health = _healths.setdefault((context.job, str(url)), _Health())

    def send(self, flows: pa.RecordBatch) -> Sent:
        """Sends a block.

        Raises:
            InputError: The server did not take it in time and nothing may be written aside, or never will take it.
        """
        import tenacity

        aside = self._context.unsent
        patience_s = self._context.retry_s
        if aside is not None and self._health.is_down:
            if time.monotonic() < self._health.probe_at:
                return self._set_aside(flows, tries=0)
            self._health.probe_at = time.monotonic() + PROBE_S
            patience_s = 0.0
        spread = tenacity.wait_random_exponential(multiplier=_WAITS_S[0], max=_WAITS_S[1])
        # a connection that died in silence takes a call's whole time: the next one may find the server there
        is_enough = tenacity.stop_after_delay(patience_s) & tenacity.stop_after_attempt(2 if patience_s else 1)
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            wait=lambda state: max(spread(state), _asked_for(state)),
            stop=is_enough | tenacity.stop_when_event_set(self._stopped),
            sleep=tenacity.sleep_using_event(self._stopped),
            before_sleep=self._tell,
            reraise=True,
        )
        tries = 0
        try:
            for attempt in trying:
                with attempt:
                    tries += 1
                    began = time.monotonic()
                    sent = self._try(flows)
        except Unavailable as error:
            self._health.probe_at = time.monotonic() + PROBE_S
            self._health.is_down = True
            if aside is not None and not self._stopped.is_set():
                return self._set_aside(flows, tries)
            times = "1 try" if tries == 1 else f"{tries} tries in {patience_s:g} s"
            raise InputError(
                f"{self._url}: gave up after {times}: {error}; start again when it is back, or write aside what it "
                "does not take: --on_sink_failure=continue"
            ) from error
        if self._health.is_told:
            _log.info("%s: accepts flows again", self._url)
        self._health.is_down = self._health.is_told = False
        return sent._replace(tries=tries, milliseconds=round((time.monotonic() - began) * 1000))

    def stop(self) -> None:
        """Ends the waiting of blocks that are being tried: they fail."""
        self._stopped.set()

    def resume(self) -> None:
        """Sends again after `stop`."""
        self._stopped.clear()

    def close(self) -> None:
        """Gives the connection up."""
        with self._opening:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _try(self, flows: pa.RecordBatch) -> Sent:
        with self._opening:
            if self._writer is None:
                self._writer = self._open_writer()
            writer = self._writer
        rejects = []
        counts = Counter[str]()
        for told in writer.write(flows):
            if isinstance(told, Reject):
                rejects.append(told)
            else:
                counts[told.name] += told.number
        return Sent(len(flows) - len(rejects) - counts[LEFT_OUT], 0, rejects, counts, 0, 0)

    def _tell(self, state: Any) -> None:
        """Says once in an outage that there is one."""
        if not self._health.is_told:
            self._health.is_told = True
            _log.warning("%s: %s; trying again", self._url, state.outcome.exception())

    def _set_aside(self, flows: pa.RecordBatch, tries: int) -> Sent:
        assert self._context.unsent is not None
        unsent.write(self._context.unsent, self._url, self._context, flows)
        return Sent(0, len(flows), [], Counter(), tries, 0)


class WriteBlocks(beam.PTransform):
    """Writes flows to a server in blocks.

    Input: record batches of one schema, in any order. When a bundle is finished, every record of it is on the server,
    in the rejects or, with `--on_sink_failure=continue`, written aside; a repeated bundle is written again. Output:
    what the server refused. Lost connections and overload are tried again for `retry_s`; then the bundle fails.

    Args:
        url: The output.
        context: Of the job.
        open_writer: Opens the sink's writer on a worker.
        block_rows: Records of a block; the last of a bundle may have fewer.
        threads: Blocks under way at a time; `write` is called by so many threads.
        makes: What opening the sink has made, such as tables; with `context.only_check`, what it would make.
    """

    def __init__(
        self,
        url: SinkUrl,
        context: SinkContext,
        open_writer: OpenWriter,
        block_rows: int = BLOCK_ROWS,
        threads: int = 1,
        makes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.url = url
        self.context = context
        self.open_writer = open_writer
        self.block_rows = block_rows
        self.threads = threads
        self.makes = tuple(makes)
        self.secrets = server_secrets.references()

    def expand(self, flows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[Reject]:
        """Adds the step that writes."""
        return flows | "WriteBlocks" >> beam.ParDo(_WriteBlocks(self))

    def sender(self) -> BlockSender:
        """What sends the blocks, within a pipeline and without."""
        return BlockSender(self.url, self.context, self.open_writer, self.secrets)


class _UnderWay(threading.Thread):
    """One block being sent. No process waits for the thread at its end."""

    def __init__(self, sender: BlockSender, flows: pa.RecordBatch) -> None:
        super().__init__(name="block", daemon=True)
        self._sender = sender
        self._flows = flows
        self.octets = flows.nbytes
        self._sent: Sent | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._sent = self._sender.send(self._flows)
        except BaseException as error:  # raised again in the thread that waits
            self._error = error

    def result(self) -> Sent:
        self.join()
        if self._error is not None:
            raise self._error
        assert self._sent is not None
        return self._sent


class _WriteBlocks(beam.DoFn):
    def __init__(self, step: WriteBlocks) -> None:
        self._make_sender = step.sender
        self._block_rows = step.block_rows
        self._threads = step.threads
        self._step = step.url.module
        self._sender: BlockSender | None = None
        self._gathered: list[pa.RecordBatch] = []
        self._under_way: deque[_UnderWay] = deque()
        self._written = Metrics.counter(self._step, "records_written")
        self._refused = Metrics.counter(self._step, "records_refused")
        self._aside = Metrics.counter(self._step, "records_set_aside")
        self._retried = Metrics.counter(self._step, "blocks_retried")
        self._block_ms = Metrics.distribution(self._step, "block_ms")

    def setup(self) -> None:
        self._sender = self._make_sender()

    def start_bundle(self) -> None:
        self._abandon()

    def process(self, flows: pa.RecordBatch) -> Iterator[Reject]:
        self._gathered.append(flows)
        if sum(map(len, self._gathered)) >= self._block_rows:
            yield from self._send(self._block_rows)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        rejects = [*self._send(1), *self._answers(0)]
        for reject in rejects:
            yield WindowedValue(reject, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def teardown(self) -> None:
        self._abandon()
        if self._sender is not None:
            self._sender.close()

    def _send(self, least: int) -> Iterator[Reject]:
        """Sends what is gathered in blocks, each when there is room for it; less than `least` records stay."""
        gathered = joined([flows for flows in self._gathered if len(flows)])
        while gathered is not None and len(gathered) >= least:
            block, gathered = gathered.slice(0, self._block_rows), gathered.slice(self._block_rows)
            while sum(one.octets for one in self._under_way) + block.nbytes > UNDER_WAY_OCTETS and self._under_way:
                yield from self._answers(len(self._under_way) - 1)
            yield from self._answers(self._threads - 1)
            assert self._sender is not None
            self._under_way.append(_UnderWay(self._sender, block))
        self._gathered = [gathered] if gathered is not None and len(gathered) else []

    def _answers(self, left: int) -> Iterator[Reject]:
        """Waits until no more than `left` blocks are under way; what the server refused of the others."""
        while len(self._under_way) > left:
            sent = self._under_way.popleft().result()
            self._written.inc(sent.written)
            self._refused.inc(len(sent.rejects))
            self._aside.inc(sent.aside)
            self._retried.inc(max(sent.tries - 1, 0))
            for name, number in sent.counts.items():
                Metrics.counter(self._step, name).inc(number)
            if sent.written or sent.rejects:
                self._block_ms.update(sent.milliseconds)
            yield from sent.rejects

    def _abandon(self) -> None:
        """Forgets what a failed bundle left under way."""
        self._gathered = []
        if self._under_way and self._sender is not None:
            self._sender.stop()
            while self._under_way:
                self._under_way.popleft().join()
            self._sender.resume()


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    """One batch of several; None of none."""
    if len(batches) <= 1:
        return batches[0] if batches else None
    (one,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return one


def _asked_for(state: Any) -> float:
    """How long the server asked to wait with its last answer."""
    error = state.outcome.exception()
    return error.after_s if isinstance(error, Unavailable) else 0.0
