"""Kafka as a queue: each topic partition is a part, blocks of a stream stay in their order.

`kafka://HOST:PORT[,HOST:PORT]/TOPIC`, with settings after `?`:

| setting | meaning |
|---|---|
| `security` | `plaintext` (default), `ssl`, `sasl_plaintext` or `sasl_ssl` |
| `mechanism` | of SASL: `PLAIN` (default), `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER` or `GSSAPI` |
| `client_config` | a file of librdkafka's client settings, `name=value` each, such as `ssl.ca.location=/etc/ca.pem` |
| `compression` | writers: `lz4` (default), `zstd`, `snappy`, `gzip` or `none` |
| `group` | readers: the consumer group under which offsets are committed, for lag monitoring only; default none |

Secrets are never in the URL: every environment variable `FLOWBEAM_KAFKA_NAME` is the client setting `name`, with dots
for underscores (`FLOWBEAM_KAFKA_SASL_USERNAME`, `FLOWBEAM_KAFKA_SASL_PASSWORD`, `FLOWBEAM_KAFKA_SSL_KEY_PASSWORD`); or
they are where `queues.server_secrets` says, or in `client_config`. Sensors and workers each need theirs.

Make topics with `message.timestamp.type=LogAppendTime`: then the broker's clock tells which sensor is silent and which
block is from the future. A message has the sensor's name as its key and one block as its value.
"""

import time
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from queues.kafka_client import Topic, TopicFacts, Troubles, facts_of, library, line_of, made_client, topic_of
from queues.put_order import PutOrder, Ticket
from transforms.records import InputError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

COMPRESSIONS = ("lz4", "zstd", "snappy", "gzip", "none")

WAITING_OCTETS_MOST = 32 << 20
"""The client holds as much; more is not accepted until the brokers have taken some."""

_ENVELOPE_OCTETS = 512  # key, headers and framing of a message, counted against the topic's limit


def open_live(rest: str) -> "KafkaLiveWriter":
    """The writer of `kafka:` + `rest`, for a sensor.

    Raises:
        InputError: The URL is wrong, no broker answers, or the topic cannot be used.
    """
    topic = topic_of(rest, ("compression",))
    compression = topic.settings.get("compression", COMPRESSIONS[0])
    if compression not in COMPRESSIONS:
        raise InputError(f"{topic.url}: compression {compression} is not one of {', '.join(COMPRESSIONS)}")
    return KafkaLiveWriter(topic, facts_of(topic), compression)


def open_reader(rest: str) -> NoReturn:
    """A topic has no end, so that it is no bounded input.

    Raises:
        InputError: Always; it names the options to read it with.
    """
    raise InputError(f"{topic_of(rest, ('group',)).url}: has no end; add --streaming, and --stop_at_end to stop there")


class KafkaLiveWriter:
    """Puts blocks onto a topic, each once and in order, whatever happens to brokers meanwhile.

    The client tries for ever: idempotent, acknowledged by all replicas in sync. What it gives up nevertheless is an
    error, after which all that is not settled must be put again, to a new writer.

    Args:
        topic: The topic.
        facts: What it is like.
        compression: One of `COMPRESSIONS`.

    Attributes:
        partitions: Number of the topic's partitions when it was opened.
        problem: One line that says why nothing is accepted just now; None while all is well.
        message_octets_most: The largest block that the topic takes.
    """

    def __init__(self, topic: Topic, facts: TopicFacts, compression: str) -> None:
        self.partitions = facts.partitions
        self.problem: str | None = None
        self.message_octets_most = facts.message_octets_most - _ENVELOPE_OCTETS
        self._topic = topic
        self._troubles = Troubles(topic)
        self._refusal: str | None = None
        self._order = PutOrder()
        settings = {
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 0,  # for ever: a block that is given up could only be lost or out of order
            "message.max.bytes": max(facts.message_octets_most, 1000),
            "queue.buffering.max.kbytes": WAITING_OCTETS_MOST >> 10,
            "linger.ms": 5,
            "compression.type": compression,
            "error_cb": self._troubles,
        }
        self._producer: Any = made_client(topic, "Producer", settings)

    def put(self, message: bytes, partition: int, sensor: str) -> bool:
        """Hands over a block; False if the client holds as much as it may just now.

        Raises:
            InputError: The topic will never accept it.
        """
        self._check()
        if len(message) > self.message_octets_most:
            self._refuse_size(len(message))
        kafka = library(self._topic)
        ticket = Ticket()
        try:
            self._producer.produce(
                self._topic.name, message, sensor.encode(), partition, on_delivery=partial(self._delivered, ticket)
            )
        except BufferError:
            return False
        except kafka.KafkaException as error:
            self._refuse(error.args[0])
            self._check()
        self._order.put(ticket)
        return True

    def settled(self, wait_s: float) -> int:
        """How many blocks, counted in the order of `put`, all replicas have; returns early when the number grows.

        Raises:
            InputError: A block was refused for good.
        """
        before, end_s = self._order.settled, time.monotonic() + wait_s
        while True:
            self._producer.poll(max(0.0, min(0.1, end_s - time.monotonic())))
            self.problem = self._troubles.line
            self._check()
            settled = self._order.settled
            if settled > before or time.monotonic() >= end_s:
                return settled

    def close(self) -> None:
        """Gives up what is not settled."""
        self._producer.purge(blocking=False)
        self._producer.flush(0)

    def _delivered(self, ticket: Ticket, error: "KafkaError | None", _: Any) -> None:
        if error is None:
            ticket.settled = True
            self._troubles.clear()
        elif self._refusal is None:
            self._refuse(error)

    def _refuse(self, error: "KafkaError") -> None:
        codes = library(self._topic).KafkaError
        if error.code() in (codes.MSG_SIZE_TOO_LARGE, codes.RECORD_LIST_TOO_LARGE):
            self._refusal = f"{self._topic.url}: a block is larger than max.message.bytes; lower --block_packets"
        else:
            self._refusal = line_of(self._topic, error) or f"{self._topic.url}: a block was refused ({error.str()})"

    def _refuse_size(self, octets: int) -> NoReturn:
        limit = f"the topic takes {self.message_octets_most:,} (max.message.bytes)"
        raise InputError(f"{self._topic.url}: a block has {octets:,} octets, {limit}; lower --block_packets")

    def _check(self) -> None:
        if self._refusal is not None:
            raise InputError(self._refusal)
