"""`kafka://HOST:PORT[,HOST:PORT]/TOPIC`: each record a message, for whoever wants to react to flows.

Settings after `?`, beside those of any client of Kafka (`security`, `mechanism`, `client_config`, `compression`, and
the environment: `queues/kafka.py`):

| setting | meaning |
|---|---|
| `format` | `avro` (default): single-object encoding; `json`: an object, without what is null |
| `key` | `flow` (default): the 16 octets of the flow id; `source`: the initiator's address |
| `only` | `all` records (default), or `alerts` |
| `events` | `no` (default); `yes`: what is told beside flows goes to `TOPIC.sensors` and `TOPIC.drift` |
| `schema` | a file that the Avro schema is written to when the job starts; of events, `FILE.sensors`, `FILE.drift` |

Avro messages are C3 01, the CRC-64-AVRO fingerprint of the schema, and the record; every column is a field, in order.
The producer is idempotent, and a bundle is finished when all replicas in sync have its messages. A bundle that is
repeated repeats its messages, equal to the octet: the highest `record_number` of a `flow_id` counts. Messages of a key
are in one partition, the one that Java's producers choose for it.
"""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import apache_beam as beam
import pyarrow as pa

from queues.kafka import COMPRESSIONS
from queues.kafka_client import Topic, TopicFacts, Troubles, facts_of, library, line_of, made_client, topic_of
from sinks import alerts, document_lines, places
from sinks.blocks import LEFT_OUT, Counted, Unavailable, WriteBlocks
from sinks.document_lines import Piece
from sinks.json_values import quoted
from sinks.outputs import SinkContext, SinkUrl
from transforms import avro
from transforms.records import InputError, Reject

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

_CHOICES = {
    "format": ("avro", "json"),
    "key": ("flow", "source"),
    "only": ("all", "alerts"),
    "events": ("no", "yes"),
    "compression": COMPRESSIONS,
}
"""Settings with their values, the default first."""

_DELIVERY_S = 15.0
"""So long a client itself tries to deliver a message."""

_WAITING_OCTETS = 64 << 20
"""A client holds as much; more waits until the brokers have taken some."""

THREADS = 2
"""Blocks under way at a time, each by a producer of its own: one is encoded while the other is delivered."""

_ENVELOPE_OCTETS = 512  # headers and framing of a message, counted against the topic's limit


def open_sink(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `kafka://HOST:PORT/TOPIC`.

    Raises:
        InputError: A setting is wrong, no broker answers, the topic cannot be used, or what the records hold cannot
            be written in the format.
    """
    query = f"?{urlencode(url.parameters)}" if url.parameters else ""
    topic = topic_of(url.path + query, (*_CHOICES, "schema"))
    chosen = {}
    for name, values in _CHOICES.items():
        chosen[name] = topic.settings.get(name, values[0])
        if chosen[name] not in values:
            raise InputError(f"{url}: {name}={chosen[name]} is not one of {', '.join(values)}")
    if chosen["only"] == "alerts":
        alerts.check_columns(url, context.schema)
    encode = _encoder(url, chosen["format"], context.schema)
    makes: list[str] = []
    if "schema" in topic.settings:
        if chosen["format"] != "avro":
            raise InputError(f"{url}: schema={topic.settings['schema']} is for format=avro")
        place = Path(os.path.expanduser(topic.settings["schema"]))
        makes.append(f"file {place}")
        if context.only_check:
            places.check_file(str(url), place)
        else:
            _write_schema(url, place, encode.schema)
    facts = facts_of(topic)
    open_writer = functools.partial(KafkaWriter, topic, facts, encode, chosen)
    return WriteBlocks(url, context, open_writer, threads=THREADS, makes=makes)


def open_events(url: SinkUrl, context: SinkContext, dataset: str) -> beam.PTransform | None:
    """The sink for events beside the flows of an output, onto a topic of their own; None without `events=yes`.

    Args:
        url: The output.
        context: Of the job; its schema is that of the events.
        dataset: Which events.

    Raises:
        InputError: As `open_sink`.
    """
    if url.parameters.get("events") != "yes":
        return None
    of_events = {name: value for name, value in url.parameters.items() if name not in ("only", "key")}
    if "schema" in of_events:
        of_events["schema"] += f".{dataset}"
    return open_sink(url._replace(path=f"{url.path}.{dataset}", parameters=of_events), context)


class JsonMessages:
    """JSON objects, one for each row; what is null is left out."""

    def messages(self, records: pa.RecordBatch) -> list[bytes]:
        """They are in order."""
        first, *rest = records.schema.names
        lines = document_lines.assembled(
            [
                Piece(b"{" + _member(first), quoted(records[first]).fill_null("null")),
                *(Piece(b"," + _member(name), _writable(records[name])) for name in rest),
                Piece(b"}"),
            ],
            len(records),
        )
        octets, bounds = lines.octets.tobytes(), lines.bounds.tolist()
        return [octets[begin:end] for begin, end in pairwise(bounds)]


def _writable(column: pa.Array) -> pa.Array:
    return column if document_lines.is_written(column.type) else quoted(column)


def _member(name: str) -> bytes:
    return json.dumps(name, ensure_ascii=False).encode() + b":"


def _encoder(url: SinkUrl, form: str, schema: pa.Schema) -> Any:
    if form == "json":
        return JsonMessages()
    try:
        return avro.row_encoder(schema)
    except ValueError as error:
        raise InputError(f"{url}: {error}; take format=json") from error


def _write_schema(url: SinkUrl, path: Path, schema: dict[str, Any]) -> None:
    with places.one_line(str(url), path):
        hidden = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            hidden.write_text(json.dumps(schema, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)


class KafkaWriter:
    """Puts blocks onto a topic; a block is written when all its messages are on it. Threads may call `write`.

    Args:
        topic: The topic.
        facts: What it is like.
        encoder: Has `messages(records)`, one for each row.
        chosen: A value for each of `_CHOICES`.
    """

    def __init__(self, topic: Topic, facts: TopicFacts, encoder: Any, chosen: dict[str, str]) -> None:
        self._topic, self._facts, self._encoder, self._chosen = topic, facts, encoder, chosen
        self._idle: list[_Producer] = []

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject | Counted]:
        """As `BlockWriter` says."""
        records = alerts.chosen(flows) if self._chosen["only"] == "alerts" else flows
        yield Counted(LEFT_OUT, len(flows) - len(records))
        try:
            producer = self._idle.pop()
        except IndexError:
            producer = _Producer(self._topic, self._facts, self._chosen["compression"])
        try:
            yield from producer.delivered(self._encoder.messages(records), self._keys(records))
        except BaseException:
            producer.close()
            raise
        self._idle.append(producer)

    def close(self) -> None:
        """Gives the connections up."""
        while self._idle:
            self._idle.pop().close()

    def _keys(self, records: pa.RecordBatch) -> list[bytes | None]:
        wanted = "flow_id" if self._chosen["key"] == "flow" else "src_ip"
        name = wanted if wanted in records.schema.names else "sensor"  # of an event
        return records[name].cast(pa.binary()).to_pylist() if name in records.schema.names else [None] * len(records)


class _Producer:
    """A client that delivers the messages of one block at a time; after an error it is of no use any more.

    Args:
        topic: The topic.
        facts: What it is like.
        compression: One of `COMPRESSIONS`.
        alone: Each message is a request of its own: what the brokers refuse then, they refuse for itself.
    """

    def __init__(self, topic: Topic, facts: TopicFacts, compression: str, alone: bool = False) -> None:
        self._topic, self._facts, self._compression, self._alone = topic, facts, compression, alone
        self._troubles = Troubles(topic)
        self._failed: list[tuple[KafkaError, Message]] = []
        settings = {
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": round(_DELIVERY_S * 1000),
            "message.max.bytes": max(facts.message_octets_most, 1000),
            "queue.buffering.max.kbytes": _WAITING_OCTETS >> 10,
            "linger.ms": 5,
            "compression.type": compression,
            "partitioner": "murmur2_random",
            "delivery.report.only.error": True,
            "on_delivery": lambda error, message: self._failed.append((error, message)),
            "error_cb": self._troubles,
        }
        self._client = made_client(topic, "Producer", settings | ({"batch.num.messages": 1} if alone else {}))

    def delivered(self, messages: Sequence[bytes], keys: Sequence[bytes | None]) -> Iterator[Reject]:
        """Delivers messages; when the iterator ends, the brokers have them for good, but for those it yields.

        Raises:
            Unavailable: They must be delivered again, by another producer.
        """
        yield from self._put(messages, keys)
        while self._client.flush(0.5):  # messages that wait for `_DELIVERY_S` end as errors
            pass
        refused, self._failed = self._failed, []
        for error, _ in refused:
            if self._reason_of(error) is None:
                raise self._unavailable(error)
        if self._alone:
            for error, message in refused:
                yield self._reject(self._reason_of(error) or "", message.value() or b"")
        elif refused:  # with what was in one request with them
            again = [message for _, message in refused]
            other = _Producer(self._topic, self._facts, self._compression, alone=True)
            try:
                yield from other.delivered([one.value() or b"" for one in again], [one.key() for one in again])
            finally:
                other.close()
        self._troubles.clear()

    def close(self) -> None:
        """Gives up what is not delivered."""
        self._client.purge(blocking=False)
        self._client.flush(0)

    def _put(self, messages: Sequence[bytes], keys: Sequence[bytes | None]) -> Iterator[Reject]:
        produce, name = self._client.produce, self._topic.name
        most = self._facts.message_octets_most - _ENVELOPE_OCTETS
        for message, key in zip(messages, keys, strict=True):
            if len(message) + len(key or b"") > most:
                yield self._reject("too large", message)
                continue
            while True:
                try:
                    produce(name, message, key)
                    break
                except BufferError:  # the client holds as much as it may
                    self._client.poll(0.05)
                except library(self._topic).KafkaException as error:
                    raise self._unavailable(error.args[0]) from error

    def _reason_of(self, error: "KafkaError") -> str | None:
        """Why the brokers refused a message, or others in its request; None if they did not."""
        codes, code = library(self._topic).KafkaError, error.code()
        if code in (codes.MSG_SIZE_TOO_LARGE, codes.RECORD_LIST_TOO_LARGE):
            return "too large"
        return "invalid" if code in (codes.INVALID_RECORD, codes._INVALID_DIFFERENT_RECORD) else None

    def _reject(self, reason: str, message: bytes) -> Reject:
        return Reject("kafka", reason, self._topic.url, None, message)

    def _unavailable(self, error: "KafkaError") -> Unavailable:
        line = self._troubles.line or line_of(self._topic, error)
        return Unavailable(line or f"{self._topic.url}: not delivered ({error.str()})")
