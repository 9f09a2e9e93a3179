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
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
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
"""So long the client itself tries to deliver a message."""

_WAITING_OCTETS = 64 << 20
"""The client holds as much; more waits until the brokers have taken some."""

_SLICE_ROWS = 2048

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
    return WriteBlocks(url, context, functools.partial(KafkaWriter, topic, facts, encode, chosen), makes=makes)


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
    """Puts blocks onto a topic; a block is written when all its messages are on it.

    Args:
        topic: The topic.
        facts: What it is like.
        encoder: Has `messages(records)`, one for each row.
        chosen: A value for each of `_CHOICES`.
    """

    def __init__(self, topic: Topic, facts: TopicFacts, encoder: Any, chosen: dict[str, str]) -> None:
        self._topic, self._encoder, self._chosen = topic, encoder, chosen
        self._octets_most = facts.message_octets_most - _ENVELOPE_OCTETS
        self._troubles = Troubles(topic)
        self._errors: list[tuple[KafkaError, bytes]] = []
        self._settings = {
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": round(_DELIVERY_S * 1000),
            "message.max.bytes": max(facts.message_octets_most, 1000),
            "queue.buffering.max.kbytes": _WAITING_OCTETS >> 10,
            "linger.ms": 5,
            "compression.type": chosen["compression"],
            "partitioner": "murmur2_random",
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
            "error_cb": self._troubles,
        }
        self._producer: Any = None

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject | Counted]:
        """As `BlockWriter` says."""
        records = alerts.chosen(flows) if self._chosen["only"] == "alerts" else flows
        yield Counted(LEFT_OUT, len(flows) - len(records))
        self._errors.clear()
        if self._producer is None:
            self._producer = made_client(self._topic, "Producer", self._settings)
        for first in range(0, len(records), _SLICE_ROWS):  # what is delivered overlaps with what is encoded
            yield from self._put(records.slice(first, _SLICE_ROWS))
        self._settle()
        for error, message in self._errors:
            yield self._refused(error, message)

    def close(self) -> None:
        """Gives up what is not delivered."""
        if self._producer is not None:
            self._producer.purge(blocking=False)
            self._producer.flush(0)
            self._producer = None

    def _put(self, records: pa.RecordBatch) -> Iterator[Reject]:
        produce, name = self._producer.produce, self._topic.name
        for message, key in zip(self._encoder.messages(records), self._keys(records), strict=True):
            if len(message) + len(key or b"") > self._octets_most:
                yield Reject("kafka", "too large", self._topic.url, None, message)
                continue
            while True:
                try:
                    produce(name, message, key)
                    break
                except BufferError:  # the client holds as much as it may
                    self._producer.poll(0.05)
                except library(self._topic).KafkaException as error:
                    self._give_up(error.args[0])
        self._producer.poll(0)

    def _keys(self, records: pa.RecordBatch) -> list[bytes | None]:
        wanted = "flow_id" if self._chosen["key"] == "flow" else "src_ip"
        name = wanted if wanted in records.schema.names else "sensor"  # of an event
        return records[name].cast(pa.binary()).to_pylist() if name in records.schema.names else [None] * len(records)

    def _settle(self) -> None:
        """Waits until the brokers have everything, or the client has given it up: within `_DELIVERY_S`, about."""
        while self._producer.flush(0.5):
            if self._troubles.lasting:
                line = self._troubles.line
                self.close()
                self._troubles.clear()
                raise InputError(line)
        codes = library(self._topic).KafkaError
        refusals = (codes.MSG_SIZE_TOO_LARGE, codes.RECORD_LIST_TOO_LARGE, codes.INVALID_RECORD)
        for error, _ in self._errors:
            if error.code() not in refusals:
                self._give_up(error)
        self._troubles.clear()

    def _delivered(self, error: "KafkaError", message: "Message") -> None:
        self._errors.append((error, message.value() or b""))

    def _refused(self, error: "KafkaError", message: bytes) -> Reject:
        reason = "invalid" if error.code() == library(self._topic).KafkaError.INVALID_RECORD else "too large"
        return Reject("kafka", reason, self._topic.url, None, message)

    def _give_up(self, error: "KafkaError") -> NoReturn:
        """Forgets what is under way: all of the block is tried again, by another producer."""
        line = line_of(self._topic, error)
        told = self._troubles.line or f"{self._topic.url}: not delivered ({error.str()})"
        self.close()
        self._troubles.clear()
        if line is not None:
            raise InputError(line)
        raise Unavailable(told)
