"""Flows to Elasticsearch and OpenSearch by the bulk API: the sink behind `elasticsearch:` and `opensearch:` URLs.

A document's id is the flow's, its version the record's number: a record replaces lower ones of its flow, never a higher
one, and one that is there already is accepted as such. What a document holds that the server refuses is a reject.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from sinks.blocks import Counted, Unavailable, WriteBlocks
from sinks.command import OneLineParser, status_of
from sinks.outputs import SinkContext, SinkUrl, parse_url
from sinks.search_client import Address, connect, parse_address, reason_of
from transforms import fields
from transforms.features import sets
from transforms.records import InputError, Reject

if TYPE_CHECKING:
    from sinks.document_lines import Lines

REQUEST_OCTETS = 5 << 20
"""Size of a request, about."""

BLOCK_ROWS = 2048
THREADS = 3

_ASKED = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
_WHICH = re.compile(r"^\[[^\]]*\] (?=failed|strict|mapping)|( in document with id '|\. Preview of field).*$", re.DOTALL)
"""What a reason says of the one document; the rest is a reason that many share."""


def open_bulk(url: SinkUrl, context: SinkContext) -> beam.PTransform:
    """The sink for `elasticsearch://HOST:PORT/INDEX` and the like; the index template is there when this returns.

    Raises:
        InputError: A setting is wrong, or the server is away or does not accept it.
    """
    from sinks.event_documents import documents_of

    address = parse_address(url)
    documents = documents_of(context.schema, address.name)
    makes: list[str] = []
    try:
        makes = set_up(address, documents.mapping(), context.only_check)
    except Unavailable as error:
        if context.unsent is None:
            raise InputError(f"{url}: {error}; start the server, or correct the address") from error
    return WriteBlocks(url, context, partial(Bulk, address, context.schema), BLOCK_ROWS, THREADS, makes)


def open_events(url: SinkUrl, context: SinkContext, dataset: str) -> beam.PTransform | None:
    """The sink for events beside the flows of an output, in indices of their own; None with `events=no`.

    Args:
        url: The output.
        context: Of the job; its schema is that of the events.
        dataset: Which events.

    Raises:
        InputError: As `open_bulk`.
    """
    if not parse_address(url).events:
        return None
    return open_bulk(url._replace(path=f"{url.path}.{dataset}"), context)


def set_up(address: Address, properties: dict[str, Any], only_check: bool = False) -> list[str]:
    """Makes the index template where that is wanted; see `search_index.set_up`."""
    from sinks import search_index

    server = connect(address)
    try:
        if address.setup:
            return search_index.set_up(server, address, properties, only_check)
        search_index.check_prepared(server, address, properties)
        return []
    finally:
        server.close()


class Bulk:
    """A `BlockWriter` for one index. `write` may be called by several threads.

    Args:
        address: Server and index.
        schema: The columns of the blocks.
    """

    def __init__(self, address: Address, schema: pa.Schema) -> None:
        from sinks.event_documents import documents_of

        self._address = address
        self._documents = documents_of(schema, address.name)
        set_up(address, self._documents.mapping())  # of a server that was away when the pipeline was built
        self._server = connect(address)

    def write(self, flows: pa.RecordBatch) -> Iterator[Reject | Counted]:
        """Writes a block; see `BlockWriter`."""
        for lines in self._documents.bulk(flows):
            first = 0
            while first < len(lines):
                after = int(np.searchsorted(lines.bounds, lines.bounds[first] + REQUEST_OCTETS, "right")) - 1
                after = max(after, first + 1)
                yield from self._send(lines, first, after)
                first = after

    def close(self) -> None:
        """Gives the connection up."""
        self._server.close()

    def _send(self, lines: "Lines", first: int, after: int) -> Iterator[Reject | Counted]:
        answer = self._server.ask("POST", f"/_bulk?{_ASKED}", bytes(lines.between(first, after)))
        if answer.status == 413:
            yield from self._send_in_halves(lines, first, after)
            return
        if answer.status == 400:
            raise InputError(f"{self._address.url}: the server refuses a request: {reason_of(answer.body)}")
        if answer.status != 200:
            raise Unavailable(f"status {answer.status}: {reason_of(answer.body)}", answer.after_s)
        if not answer.body["errors"]:
            return
        repeated = 0
        for row, item in enumerate(answer.body["items"], first):
            told = item["index"]
            status = told["status"]
            if status < 300:
                continue
            if status == 409:
                repeated += 1
            elif status in (400, 413):
                reason = f"{told['error']['type']}: {_WHICH.sub('', told['error']['reason'])}"
                yield self._reject(lines, row, reason)
            else:
                raise Unavailable(f"status {status}: {told['error']['reason']}")
        if repeated:
            yield Counted("records_repeated", repeated)

    def _send_in_halves(self, lines: "Lines", first: int, after: int) -> Iterator[Reject | Counted]:
        middle = (first + after) // 2
        if middle == first:
            yield self._reject(lines, first, "request too large")
            return
        yield from self._send(lines, first, middle)
        yield from self._send(lines, middle, after)

    def _reject(self, lines: "Lines", row: int, reason: str) -> Reject:
        _, _, document = lines.line(row).partition(b"\n")
        return Reject(self._address.url.module, reason, str(self._address.url), None, document.rstrip())


def main(module: str, arguments: Sequence[str]) -> int:
    """`python -m sinks.elasticsearch --setup URL`: makes the index template, and says what it did."""
    return status_of(lambda: _run(module, arguments))


def _run(module: str, arguments: Sequence[str]) -> None:
    parser = OneLineParser(prog=f"python -m sinks.{module}", description="Prepares a server for flows.")
    parser.add_argument("--setup", metavar="URL", required=True, help="Make the index template for this output.")
    parser.add_argument(
        "--features", metavar="SETS", default=sets.FLOWBEAM, help=f"Feature sets to come. Default {sets.FLOWBEAM}."
    )
    options = parser.parse_args(arguments)
    from sinks.documents import Documents

    chosen = sets.features_for(map(sets.get, options.features.split(",")))
    schema = fields.arrow_schema([*fields.COMMON, *(sets.CANONICAL[name] for name in chosen)])
    url = parse_url(options.setup)
    if url.module != module:
        raise InputError(f"{url}: is no output of {module}")
    address = parse_address(url)._replace(setup=True)
    documents = Documents(schema, address.name)
    try:
        makes = set_up(address, documents.mapping())
    except Unavailable as error:
        raise InputError(str(error)) from error
    done = "is made" if makes else "is up to date"
    print(f"{url}: the index template {address.name} {done}, {len(documents.leaves)} fields")
