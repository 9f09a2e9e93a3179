"""Pub/Sub as a queue: one message a block, in order within each part of a sensor.

Sensors write to `pubsub://PROJECT/TOPIC`, pipelines read `pubsub://PROJECT/SUBSCRIPTION`. With settings after `?`:

| setting | meaning |
|---|---|
| `endpoint` | a regional endpoint such as `europe-west1-pubsub.googleapis.com`: order holds within one region |
| `partitions` | writers: how many parts a sensor writes; default 1. Each takes 1 MB/s, some 25,000 packets/s |
| `readers` | readers: how many pull at the same time; default 2 |
| `ack_deadline_s` | readers: after so long without sign of life its messages go to another one; 10 to 600, default 30 |

Make the subscription with `--enable-message-ordering`: the ordering key is `sensor/partition`. Without it all is
right in the end, but later. A message has the block as its data, and `sensor`, `epoch`, `partition` and `sequence` as
attributes, for people and filters. Credentials are those that Google's tools find; PUBSUB_EMULATOR_HOST leads to an
emulator, which needs none.
"""

import hashlib
import threading
from collections import deque
from typing import Any, NamedTuple, NoReturn

from queues.pubsub_client import CALL_S, Place, check, client_of, place_of, trouble_of
from queues.put_order import PutOrder, Ticket
from transforms import avro
from transforms.records import InputError

PARTITIONS_MOST = 1_000

MESSAGE_OCTETS_MOST = 10_000_000 - 4_096
"""Of a block; Pub/Sub takes 10 MB with attributes."""

WAITING_OCTETS_MOST = 64 << 20
"""The writer holds as much; more is not accepted until Pub/Sub has taken some."""

_REQUEST_OCTETS, _REQUEST_MESSAGES = 2 << 20, 500
_KEY_OCTETS_MOST, _ATTRIBUTE_OCTETS_MOST = 1024, 1024
_AGAIN_S, _AGAIN_MOST_S = 0.1, 5.0


def open_live(rest: str) -> "PubSubLiveWriter":
    """The writer of `pubsub:` + `rest`, for a sensor.

    Raises:
        InputError: The URL is wrong, or the topic cannot be used.
    """
    topic = place_of("topic", rest, ("partitions",))
    partitions = topic.number("partitions", 1, 1, PARTITIONS_MOST)
    client = client_of(topic)
    try:
        check(topic, client)
    except InputError:
        client.transport.close()
        raise
    return PubSubLiveWriter(topic, client, partitions)


def open_reader(rest: str) -> NoReturn:
    """A subscription has no end, so that it is no bounded input.

    Raises:
        InputError: Always; it names the options to read it with.
    """
    url = place_of("subscription", rest, ("readers", "ack_deadline_s")).url
    raise InputError(f"{url}: has no end; add --streaming, and --stop_at_end to stop when all sensors have ended")


class _Put(NamedTuple):
    """A block on its way."""

    octets: bytes
    key: str
    attributes: dict[str, str]
    ticket: Ticket


class PubSubLiveWriter:
    """Publishes blocks, those of each partition one request after the other, so that nothing overtakes.

    What fails is tried again for ever, in order; a block whose answer was lost is on the topic twice. What Pub/Sub
    refuses for good is an error, after which all that is not settled must be put again, to a new writer.

    Args:
        topic: The topic.
        client: Of Pub/Sub; closed with the writer.
        partitions: How many parts the sensor shall write.

    Attributes:
        partitions: Number of parts.
        problem: One line that says why nothing is accepted just now; None while all is well.
        message_octets_most: The largest block.
    """

    def __init__(self, topic: Place, client: Any, partitions: int) -> None:
        self.partitions = partitions
        self.problem: str | None = None
        self.message_octets_most = MESSAGE_OCTETS_MOST
        self._topic, self._client = topic, client
        self._changed = threading.Condition()
        self._order = PutOrder()
        self._waiting: dict[int, deque[_Put]] = {}
        self._waiting_octets = 0
        self._refusal: Exception | None = None
        self._closed = False

    def put(self, message: bytes, partition: int, sensor: str) -> bool:
        """Hands over a block; False while too much waits.

        Raises:
            InputError: The topic will never accept it.
        """
        if len(message) > self.message_octets_most:
            limit = f"Pub/Sub takes {self.message_octets_most:,}"
            raise InputError(f"{self._topic.url}: a block has {len(message):,} octets, {limit}; lower --block_packets")
        block = avro.decode_header(message)
        numbers = {"epoch": block.stream.epoch, "partition": block.stream.partition, "sequence": block.sequence}
        attributes = {"sensor": _cut(sensor), **{name: str(number) for name, number in numbers.items()}}
        with self._changed:
            self._check()
            if self._waiting_octets and self._waiting_octets + len(message) > WAITING_OCTETS_MOST:
                return False
            put = _Put(message, _ordering_key(sensor, partition), attributes, Ticket())
            self._order.put(put.ticket)
            self._waiting_octets += len(message)
            if partition not in self._waiting:
                self._waiting[partition] = deque()
                threading.Thread(target=self._publish, args=(partition,), name="publish", daemon=True).start()
            self._waiting[partition].append(put)
            self._changed.notify_all()
        return True

    def settled(self, wait_s: float) -> int:
        """How many blocks, counted in the order of `put`, Pub/Sub has; returns early when the number grows.

        Raises:
            InputError: A block was refused for good.
        """
        with self._changed:
            before = self._order.settled
            self._changed.wait_for(lambda: self._refusal is not None or self._order.settled > before, wait_s)
            self._check()
            return self._order.settled

    def close(self) -> None:
        """Gives up what is not settled."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._client.transport.close()

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _publish(self, partition: int) -> None:
        """Sends what waits for a partition, until the writer is closed or refused."""
        waiting, failures = self._waiting[partition], 0
        while requested := self._next_request(waiting):
            request = {
                "topic": self._topic.path,
                "messages": [
                    {"data": one.octets, "ordering_key": one.key, "attributes": one.attributes} for one in requested
                ],
            }
            try:
                self._client.publish(request=request, retry=None, timeout=CALL_S)
            except Exception as error:  # whoever puts more is told of those that no call raises
                if not self._failed(error, failures):
                    return
                failures += 1
                continue
            failures = 0
            with self._changed:
                self.problem = None
                for one in requested:
                    waiting.popleft()
                    one.ticket.settled = True
                    self._waiting_octets -= len(one.octets)
                self._changed.notify_all()

    def _next_request(self, waiting: "deque[_Put]") -> list[_Put]:
        """What goes out next; waits for it. Nothing if the writer is closed."""
        with self._changed:
            self._changed.wait_for(lambda: waiting or self._closed or self._refusal)
            if self._closed or self._refusal:
                return []
            requested, octets = [waiting[0]], len(waiting[0].octets)
            for one in list(waiting)[1:_REQUEST_MESSAGES]:
                octets += len(one.octets)
                if octets > _REQUEST_OCTETS:
                    break
                requested.append(one)
            return requested

    def _failed(self, error: Exception, failures: int) -> bool:
        """Whether to try again, after a pause."""
        with self._changed:
            if self._closed:
                return False
            try:
                trouble = trouble_of(self._topic, error)
            except Exception as fault:
                self._refusal = fault
                self._changed.notify_all()
                return False
            self.problem = trouble.line
            if trouble.final:
                self._refusal = InputError(trouble.line)
                self._changed.notify_all()
                return False
            self._changed.wait_for(lambda: self._closed, min(_AGAIN_S * 2.0**failures, _AGAIN_MOST_S))
            return not self._closed


def _ordering_key(sensor: str, partition: int) -> str:
    key = f"{sensor}/{partition}"
    if len(key.encode()) <= _KEY_OCTETS_MOST:
        return key
    return f"{hashlib.blake2b(sensor.encode(), digest_size=16).hexdigest()}/{partition}"


def _cut(text: str) -> str:
    return text.encode()[:_ATTRIBUTE_OCTETS_MOST].decode(errors="ignore")
