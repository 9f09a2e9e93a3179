"""Messages of a topic's partitions, fetched ahead: by a thread for each, so that whoever reads may wait for any."""

import logging
import threading
import time
from collections import deque
from typing import Any, NamedTuple

from queues.kafka_client import Topic, Troubles, library, line_of, made_client
from transforms.records import NO_TIME, InputError

AHEAD_OCTETS_MOST = 4 << 20
"""A feed holds so much ready; the client beneath it four times as much."""

PATIENCE_S = 60.0
"""A topic may be missing, or credentials be refused, for so long in a feed that has worked."""

PARKED_S = 60.0
"""A feed that nobody takes for so long is closed: its partition is read elsewhere."""

TURN_S = 2.0
"""So long after it was parked a feed with messages makes others give up their turn."""

_COMMIT_S, _ASK_S, _POLL_S = 5.0, 1.0, 0.5
_AT_ONCE = 64

_log = logging.getLogger(__name__)


class Fetched(NamedTuple):
    """A message.

    Attributes:
        octets: Its value; empty if it has none.
        offset: Its place in the partition.
        received_ns: When the broker got it; NO_TIME if that is not known.
    """

    octets: bytes
    offset: int
    received_ns: int


class _Outages:
    """Which feeds wait for a broker just now: whether one of several of a topic has something to tell."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[object]] = {}
        self._lock = threading.Lock()

    def begins(self, topic: Topic, feed: object) -> bool:
        """Notes that a feed waits; whether no other one of the topic does."""
        with self._lock:
            waiting = self._waiting.setdefault(topic.url, set())
            waiting.add(feed)
            return len(waiting) == 1

    def ends(self, topic: Topic, feed: object) -> bool:
        """Notes that a feed no longer waits; whether it was the last one of the topic that did."""
        with self._lock:
            waiting = self._waiting.get(topic.url, set())
            if feed not in waiting:
                return False
            waiting.remove(feed)
            return not waiting


_outages = _Outages()


class PartitionFeed:
    """The messages of one partition, from an offset on.

    A broker that is down is waited for, as long as it takes, with one warning for all feeds of the topic. If the offset
    is no longer there, the feed goes on with the first that is, with a warning: what was between is missing from the
    order of its streams.

    The thread alone uses the client, which lets no others in while one waits.

    Args:
        topic: The topic.
        partition: Number of the partition.
        offset: Where to begin.
        ready: Notified when there are messages.

    Attributes:
        offset: Where the message is that comes next.
        parked_s: When it was parked, by the monotonic clock.
    """

    def __init__(self, topic: Topic, partition: int, offset: int, ready: threading.Condition) -> None:
        self.offset = offset
        self.parked_s = 0.0
        self._topic, self._partition, self._ready = topic, partition, ready
        self._waiting: deque[Fetched] = deque()
        self._octets = 0
        self._at_end = self._worked = self._closed = False
        self._failure: BaseException | None = None
        self._commits_told = False
        self._failed_s = self._committed_s = 0.0
        self._news_s = self._empty_s = time.monotonic()
        self._processed = self._end_known = -1
        self._troubles = Troubles(topic)
        settings = {
            "group.id": topic.settings.get("group", "flowbeam"),
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "queued.min.messages": 1000,
            "queued.max.messages.kbytes": AHEAD_OCTETS_MOST >> 8,
            "fetch.queue.backoff.ms": 20,
            "fetch.message.max.bytes": 4 << 20,
            "error_cb": self._troubles,
            "on_commit": self._on_commit,
        }
        self._consumer = made_client(topic, "Consumer", settings)
        self._assign(offset)
        self._thread = threading.Thread(target=self._run, name=f"{topic.name}/{partition}", daemon=True)
        self._thread.start()

    @property
    def key(self) -> tuple[object, ...]:
        """Which partition it is of, and how that is reached."""
        return _key(self._topic, self._partition)

    @property
    def has_news(self) -> bool:
        """There are messages, or a failure to tell."""
        return bool(self._waiting) or self._failure is not None

    @property
    def caught_up(self) -> bool:
        """Every message that was in the partition when the broker was last heard of has been taken."""
        return self._at_end and not self._waiting

    def take(self, most_octets: int) -> list[Fetched]:
        """The messages that are ready, until they have so many octets; none if there are none.

        Raises:
            InputError: The partition cannot be read, and waiting does not help.
            BaseException: What ended the thread.
        """
        with self._ready:
            messages, octets = [], 0
            while self._waiting and octets < most_octets:
                messages.append(self._waiting.popleft())
                octets += len(messages[-1].octets)
            self._octets -= octets
            failure = self._failure
            self._ready.notify_all()
        if messages:
            self.offset = messages[-1].offset + 1
        elif failure is not None:
            raise failure
        return messages

    @property
    def behind(self) -> int:
        """How many messages are still to be taken, as far as is known."""
        return max(0, self._end_known - self.offset)

    @property
    def quiet_s(self) -> float:
        """For how long the broker is known to have received nothing after the last message; 0 if it has."""
        return max(0.0, self._empty_s - self._news_s) if self.caught_up else 0.0

    def commit(self, offset: int) -> None:
        """Tells the consumer group, if there is one, that everything before `offset` was processed; now and then."""
        self._processed = offset

    def close(self) -> None:
        """Ends the thread, which closes the client."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _assign(self, offset: int) -> None:
        self._end_offset = offset
        self._consumer.assign([self._place(offset)])

    def _run(self) -> None:
        try:
            while not self._closed:
                message = self._consumer.poll(_POLL_S)
                self._commit()
                if message is None:
                    self._look_after()
                    continue
                messages = [message, *self._consumer.consume(_AT_ONCE, 0)]
                self._end_known = self._consumer.get_watermark_offsets(self._place(), cached=True)[1]
                lost = False
                with self._ready:
                    for message in messages:
                        lost = lost or self._sort_in(message)
                    self._ready.notify_all()
                    while self._octets > AHEAD_OCTETS_MOST and not self._closed:
                        self._ready.wait(1.0)
                if lost:
                    self._begin_again()
        except BaseException as error:  # whoever takes raises it
            self._fail(error)
        finally:
            _outages.ends(self._topic, self)
            self._consumer.close()

    def _fail(self, error: BaseException) -> None:
        with self._ready:
            self._failure = error
            self._ready.notify_all()

    def _sort_in(self, message: Any) -> bool:
        """Keeps a message, or notes what is said instead of one; True if the place is not in the partition."""
        error = message.error()
        if error is None:
            octets = message.value() or b""
            kind, time_ms = message.timestamp()
            by_broker = kind == library(self._topic).TIMESTAMP_LOG_APPEND_TIME
            self._waiting.append(Fetched(octets, message.offset(), time_ms * 1_000_000 if by_broker else NO_TIME))
            self._octets += len(octets)
            self._news_s = time.monotonic()
            self._at_end = False
            self._is_well()
            return False
        codes = library(self._topic).KafkaError
        if error.code() == codes._PARTITION_EOF:
            self._at_end, self._end_offset = True, message.offset()
            self._is_well()
        elif error.code() in (codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE):
            return True
        else:
            line = line_of(self._topic, error)
            if line is not None:
                self._troubles.line, self._troubles.lasting = line, True
        return False

    def _begin_again(self) -> None:
        """The place is not in the partition: what was there has expired, or the topic is another of the same name."""
        ends = self._ends()
        while ends is None and not self._closed:
            self._look_after()
            ends = self._ends()
        if ends is not None:
            name = f"{self._topic.url}, partition {self._partition}"
            _log.warning("%s: offset %d is gone; reading goes on at %d", name, self.offset, ends[0])
            self._assign(ends[0])

    def _look_after(self) -> None:
        """Where nothing comes: sees whether there is nothing, tells of an outage once, gives up what is hopeless."""
        line = self._troubles.line
        now_s = time.monotonic()
        if line is None and now_s - max(self._empty_s, self._news_s) < _ASK_S:
            return
        ends = self._ends()
        if ends is not None and self._at_end and ends[1] <= self._end_offset:
            self._empty_s = now_s
        if line is None:
            return
        if ends is not None:
            self._is_well()
        elif not self._failed_s:
            self._failed_s = now_s
            if _outages.begins(self._topic, self):
                _log.warning("%s; waiting", line)
        elif not self._troubles.lasting:
            self._failed_s = now_s  # patience ends only where waiting does not help
        elif not self._worked or now_s - self._failed_s > PATIENCE_S:
            self._fail(InputError(line))

    def _is_well(self) -> None:
        if _outages.ends(self._topic, self):
            _log.warning("%s: answers again", self._topic.url)
        self._worked, self._failed_s, self._failure = True, 0.0, None
        self._troubles.clear()

    def _commit(self) -> None:
        now_s = time.monotonic()
        offset = self._processed
        if "group" in self._topic.settings and offset >= 0 and now_s - self._committed_s > _COMMIT_S:
            self._committed_s, self._processed = now_s, -1
            self._consumer.commit(offsets=[self._place(offset)], asynchronous=True)

    def _ends(self) -> tuple[int, int] | None:
        """The first offset, and the one behind the last; None if no broker tells."""
        try:
            ends: tuple[int, int] | None = self._consumer.get_watermark_offsets(
                self._place(), timeout=2.0, cached=False
            )
        except library(self._topic).KafkaException:
            return None
        return ends

    def _place(self, *offset: int) -> Any:
        return library(self._topic).TopicPartition(self._topic.name, self._partition, *offset)

    def _on_commit(self, error: Any, _: Any) -> None:
        if error is not None and not self._commits_told:
            self._commits_told = True
            _log.warning("%s", line_of(self._topic, error) or f"{self._topic.url}: offsets are not committed ({error})")


class Feeds:
    """The feeds of a process, kept between two turns of reading."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._parked: dict[tuple[object, ...], PartitionFeed] = {}

    def take(self, topic: Topic, partition: int, offset: int) -> PartitionFeed:
        """The feed of a partition from an offset on: the one that was parked there, or a new one."""
        now_s = time.monotonic()
        with self._ready:
            feed = self._parked.pop(_key(topic, partition), None)
            unused = [one for one in self._parked.values() if now_s - one.parked_s > PARKED_S]
            for one in unused:
                del self._parked[one.key]
        for one in unused:
            one.close()
        if feed is not None and feed.offset != offset:
            feed.close()
            feed = None
        return feed or PartitionFeed(topic, partition, offset, self._ready)

    def made(self, topic: Topic, partition: int, offset: int) -> PartitionFeed:
        """A feed that is not to be parked."""
        return PartitionFeed(topic, partition, offset, self._ready)

    def park(self, feed: PartitionFeed) -> None:
        """Keeps a feed for the next turn."""
        feed.parked_s = time.monotonic()
        with self._ready:
            before = self._parked.get(feed.key)
            self._parked[feed.key] = feed
        if before is not None:
            before.close()

    def wait(self, feed: PartitionFeed, wait_s: float) -> None:
        """Waits until the feed has news, or one that was parked just now has: its turn must come."""

        def somebody_has_news() -> bool:
            latest_s = time.monotonic() - TURN_S
            return feed.has_news or any(one.has_news and one.parked_s > latest_s for one in self._parked.values())

        with self._ready:
            self._ready.wait_for(somebody_has_news, wait_s)

    def close(self) -> None:
        """Closes what is parked."""
        with self._ready:
            feeds = list(self._parked.values())
            self._parked.clear()
        for feed in feeds:
            feed.close()


def _key(topic: Topic, partition: int) -> tuple[object, ...]:
    return topic.brokers, topic.name, *sorted(topic.settings.items()), partition
