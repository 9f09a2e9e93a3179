"""How fast sinks take flows, each beside the plain best use of the official client, in the same run.

    python benchmarks/sinks.py [documents elasticsearch …]

Servers are those of the tests (`make servers`).
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP), str(TOP / "tests")]

from pipelines import flows as main_job  # noqa: E402
from pipelines import generate  # noqa: E402
from sinks import outputs  # noqa: E402
from sinks.outputs import SinkContext  # noqa: E402
from transforms import fields  # noqa: E402
from transforms.features import sets  # noqa: E402

ROWS = 8192
ROUNDS = 3
REPEATED = 4
"""Messages are sent so often in a round: a third of a second would measure how it begins and ends."""


def flows_of_demo(folder: Path, packets: int) -> list[pa.RecordBatch]:
    """Flows of generated office traffic, with every feature."""
    capture = folder / "demo.pcap"
    generate.main(["--output", str(capture), "--packets", str(packets), "--quiet"])
    main_job.main(["--runner=DirectRunner", "--quiet", f"--input={capture}", f"--output=parquet:{folder / 'flows'}"])
    schema = fields.arrow_schema(sets.CANONICAL.values())
    table = pq.read_table(folder / "flows", partitioning=None).cast(schema).combine_chunks()
    return [batch for batch in table.to_batches(ROWS) if len(batch)]


def documents(batches: list[pa.RecordBatch], _: ExitStack) -> Iterator[str]:
    """Conversion to documents for Elasticsearch, on one core."""
    from sinks.documents import Documents

    made = Documents(batches[0].schema, "flows")
    rows = sum(map(len, batches))
    octets = sum(len(lines.octets) for batch in batches for lines in made.bulk(batch))
    best = min(_processor_seconds(lambda: [list(made.bulk(batch)) for batch in batches]) for _ in range(ROUNDS))
    yield f"documents: {rows / best:,.0f} flows/s of processor time, {octets / rows:,.0f} octets each"


def bigquery(batches: list[pa.RecordBatch], _: ExitStack) -> Iterator[str]:
    """Conversion to BigQuery's rows on one core, beside dictionaries, as Beam's WriteToBigQuery takes them."""
    from sinks import bigquery_rows, bigquery_schema

    rows = sum(map(len, batches))
    octets = sum(len(request.body) for batch in batches for request in bigquery_rows.requests(batch))

    def bodies() -> None:
        for batch in batches:
            for request in bigquery_rows.requests(batch):
                assert request.body

    ways: dict[str, Callable[[], object]] = {
        f"requests of {octets / rows:,.0f} octets a row": bodies,
        "dictionaries, not yet JSON": lambda: [len(batch.to_pylist()) for batch in batches],
        "Arrow columns of a load job": lambda: [bigquery_schema.table_batch(batch) for batch in batches],
    }
    for name, work in ways.items():
        best = min(_processor_seconds(work) for _ in range(ROUNDS))
        yield f"bigquery: {rows / best:,.0f} flows/s of processor time, {name}"


def parquet(batches: list[pa.RecordBatch], stack: ExitStack) -> Iterator[str]:
    """Blocks of a bounded job, and those of an endless one with the files made of its journal, beside pyarrow alone.

    By one writer, and by as many as there are cores, as the bundles of several shards have.
    """
    from sinks.flow_files import COMPRESSIONS, FlowFiles
    from sinks.journal import Journal
    from sinks.parquet import _WriteFiles
    from sinks.record_files import complete

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def bounded(chosen: list[pa.RecordBatch], compression: str, place: Path) -> None:
        step = _WriteFiles(FlowFiles("parquet:benchmark", place, compression), "benchmark")
        step.start_bundle()
        for batch in chosen:
            step.process(batch)
        step.finish_bundle()

    def endless(chosen: list[pa.RecordBatch], compression: str, place: Path) -> None:
        journal = Journal.create(place, "benchmark", chosen[0].schema)
        for batch in chosen:
            journal.append([batch])
        complete(journal, FlowFiles("parquet:benchmark", place, compression))

    def by_pyarrow(chosen: list[pa.RecordBatch], compression: str, place: Path) -> None:
        place.mkdir(parents=True)
        pq.write_table(pa.Table.from_batches(chosen), place / "flows.parquet", compression=compression)

    cores = len(os.sched_getaffinity(0))
    pool = stack.enter_context(ThreadPoolExecutor(cores))
    for features in ("cic@1", sets.FLOWBEAM):
        names = {*(field.name for field in fields.COMMON), *sets.features_for([sets.get(features)])}
        chosen = [batch.select([name for name in batch.schema.names if name in names]) for batch in batches]
        rows = sum(map(len, chosen))
        ways = [(work, writers) for work in (bounded, endless, by_pyarrow) for writers in sorted({1, cores})]
        for compression in COMPRESSIONS:
            rates: dict[str, tuple[float, float]] = {}
            octets: dict[str, float] = {}
            for turn in range(ROUNDS):
                for work, writers in ways:
                    name = f"{work.__name__} by {writers}"
                    place = folder / f"{features}-{compression}-{work.__name__}-{writers}-{turn}"
                    given = [(chosen[part::writers], compression, place / str(part)) for part in range(writers)]
                    rate = _rate(rows, lambda: list(pool.map(work, *zip(*given, strict=True))))  # noqa: B023
                    best = rates.get(name, rate)
                    rates[name] = max(rate[0], best[0]), max(rate[1], best[1])
                    octets[name] = sum(one.stat().st_size for one in place.rglob("*.parquet")) / rows
                    shutil.rmtree(place)
            for name, (clock, processor) in rates.items():
                yield (
                    f"parquet, {features}, {compression}, {name}: {clock:,.0f} flows/s, {processor:,.0f} of processor "
                    f"time, {octets[name]:,.0f} octets each"
                )


def _processor_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def elasticsearch(batches: list[pa.RecordBatch], stack: ExitStack) -> Iterator[str]:
    """Blocks to Elasticsearch, beside `helpers.parallel_bulk` of documents that are ready."""
    import json

    from elasticsearch import Elasticsearch, helpers
    from servers.search import ElasticsearchServer

    from sinks.documents import Documents
    from sinks.search_bulk import THREADS

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(ElasticsearchServer(folder))
    client = Elasticsearch(f"http://{server.host}", request_timeout=120)
    rows = sum(map(len, batches))
    context = SinkContext((sets.FLOWBEAM,), batches[0].schema, "benchmark")

    def by_sink(index: str) -> None:
        with _opened(f"elasticsearch://{server.host}/{index}?replicas=0", context) as write:
            write(batches)

    def actions(index: str) -> list[dict[str, object]]:
        ready = []
        for batch in batches:
            for lines in Documents(batch.schema, index).bulk(batch):
                for row in range(len(lines)):
                    action, document = map(json.loads, lines.line(row).splitlines())
                    about = {name: action["index"][name] for name in ("_index", "_id")}
                    ready.append({**about, "_source": document})
        return ready

    best = {"sink": 0.0, "parallel_bulk": 0.0}
    for turn in range(ROUNDS):
        began = time.perf_counter()
        by_sink(f"sink-{turn}")
        best["sink"] = max(best["sink"], rows / (time.perf_counter() - began))
        ready = actions(f"sink-{turn}-plain")
        began = time.perf_counter()
        deque(helpers.parallel_bulk(client, ready, thread_count=THREADS), maxlen=0)
        best["parallel_bulk"] = max(best["parallel_bulk"], rows / (time.perf_counter() - began))
        server.ask("DELETE", "/" + ",".join(server.ask("GET", f"/sink-{turn}-*/_settings")))
    client.close()
    ours, theirs = best["sink"], best["parallel_bulk"]
    yield f"elasticsearch: {ours:,.0f} flows/s; parallel_bulk {theirs:,.0f}; ratio {ours / theirs:.2f}"


def kafka(batches: list[pa.RecordBatch], stack: ExitStack) -> Iterator[str]:
    """Messages to Kafka, beside the client's plain use with messages that are ready."""
    from confluent_kafka import Producer
    from servers.kafka import KafkaServer

    from transforms import avro

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(KafkaServer(folder, quick_start=False))
    for features in ("cic@1", sets.FLOWBEAM):
        names = {*(field.name for field in fields.COMMON), *sets.features_for([sets.get(features)])}
        chosen = [batch.select([name for name in batch.schema.names if name in names]) for batch in batches] * REPEATED
        rows = sum(map(len, chosen))
        ready = [message for batch in chosen for message in avro.row_encoder(batch.schema).messages(batch)]
        ids = [flow_id for batch in chosen for flow_id in batch["flow_id"].to_pylist()]
        encoding = min(
            _processor_seconds(lambda: [avro.row_encoder(batch.schema).messages(batch) for batch in chosen])  # noqa: B023
            for _ in range(ROUNDS)
        )
        for form in ("avro", "json"):
            topic = f"{features.partition('@')[0]}-{form}"
            server.create_topic(topic, 2)
            context = SinkContext((features,), chosen[0].schema, "benchmark")
            with _opened(f"kafka://{server.bootstrap}/{topic}?format={form}", context) as write:
                ours = max(_rate(rows, lambda: write(chosen)) for _ in range(ROUNDS))  # noqa: B023
            yield f"kafka, {features}, {form}: {ours[0]:,.0f} flows/s; {ours[1]:,.0f} of processor time"
        plain = Producer(
            {
                "bootstrap.servers": server.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
            }
        )

        def by_client(plain: Producer = plain, topic: str = topic) -> None:
            for message, key in zip(ready, ids, strict=True):  # noqa: B023
                while True:
                    try:
                        plain.produce(topic, message, key)
                        break
                    except BufferError:
                        plain.poll(0.05)
            plain.flush()

        theirs = max(_rate(rows, by_client) for _ in range(ROUNDS))
        yield f"kafka, {features}: {rows / encoding:,.0f} flows/s of processor time to encode"
        yield f"kafka, {features}, client, ready messages: {theirs[0]:,.0f}; {theirs[1]:,.0f} of processor time"


def cassandra(batches: list[pa.RecordBatch], stack: ExitStack) -> Iterator[str]:
    """Rows to Cassandra, beside `execute_concurrent_with_args` of rows that are ready."""
    from cassandra.concurrent import execute_concurrent_with_args
    from cassandra.util import Date
    from servers.cassandra import PASSWORD, USER, CassandraServer

    from sinks.cassandra_tables import Table, tables_of

    os.environ |= {"FLOWBEAM_CASSANDRA_USERNAME": USER, "FLOWBEAM_CASSANDRA_PASSWORD": PASSWORD}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(CassandraServer(folder))
    server.create_keyspace("benchmark")
    names = {*(field.name for field in fields.COMMON), *sets.features_for([sets.get("cic@1")])}
    chosen = [batch.select([name for name in batch.schema.names if name in names]) for batch in batches]
    context = SinkContext(("cic@1",), chosen[0].schema, "benchmark")
    url = f"cassandra://{server.address}/benchmark?consistency=ONE"
    write = stack.enter_context(_opened(url, context))
    rows = sum(map(len, chosen)) * len(tables_of(chosen[0].schema))
    session = stack.enter_context(server.session())
    session.set_keyspace("benchmark")

    def by_driver() -> None:
        for table in tables_of(chosen[0].schema):
            statement = session.prepare(table.insert(0))
            for batch in chosen:
                execute_concurrent_with_args(session, statement, ready[table.name, id(batch)], concurrency=64)

    def values(table: Table, batch: pa.RecordBatch) -> Iterator[list[object]]:
        for row in batch.to_pylist():
            yield [
                Date(row["flow_start_ns"] // 86_400_000_000_000),
                *(row[name] for name in table.columns.names),
                row["flow_start_ns"] // 1000,
            ]

    ready = {
        (table.name, id(batch)): list(values(table, batch)) for table in tables_of(chosen[0].schema) for batch in chosen
    }
    ours = theirs = (0.0, 0.0)
    for _ in range(ROUNDS):
        ours = max(ours, _rate(rows, lambda: write(chosen)))
        theirs = max(theirs, _rate(rows, by_driver))
    yield f"cassandra: {ours[0]:,.0f} rows/s; {ours[1]:,.0f} of processor time"
    yield f"cassandra, execute_concurrent: {theirs[0]:,.0f}; {theirs[1]:,.0f}; ratio {ours[0] / theirs[0]:.2f}"


@contextmanager
def _opened(url: str, context: SinkContext) -> Iterator[Callable[[list[pa.RecordBatch]], None]]:
    """The step that writes to an output; each call is a bundle."""
    from sinks.blocks import _WriteBlocks

    ((_, sink),) = outputs.open_outputs([url], context)
    step = _WriteBlocks(sink)

    def write(batches: list[pa.RecordBatch]) -> None:
        step.start_bundle()
        refused = [one for batch in batches for one in step.process(batch)] + list(step.finish_bundle())
        assert not refused

    step.setup()
    yield write
    step.teardown()


def _rate(rows: int, work: Callable[[], object]) -> tuple[float, float]:
    """Rows a second, and a second of this process' processor time."""
    began, spent = time.perf_counter(), time.process_time()
    work()
    return rows / (time.perf_counter() - began), rows / (time.process_time() - spent)


MEASURED = {one.__name__: one for one in (documents, elasticsearch, bigquery, parquet, kafka, cassandra)}


def main() -> None:
    """Prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *MEASURED], help="What to measure; all by default.")
    parser.add_argument("--packets", type=int, default=600_000)
    options = parser.parse_args()
    with ExitStack() as stack:
        batches = flows_of_demo(Path(stack.enter_context(tempfile.TemporaryDirectory())), options.packets)
        for name in options.names or MEASURED:
            for line in MEASURED[name](batches, stack):
                print(line, flush=True)


if __name__ == "__main__":
    main()
