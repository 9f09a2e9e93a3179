"""docs/parquet.md, kafka_sink.md and bigquery.md: their queries, on the demo's flows, give what the pages show."""

import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers.bigquery_gate import BigQueryGate

from pipelines import flows
from sinks import bigquery, kafka

DOCS = Path(__file__).parents[2] / "docs"
TABLE = "`my-project.net.flows_latest`"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's flows, as Parquet files."""
    folder = tmp_path_factory.mktemp("demo")
    arguments = ["--runner=DirectRunner", "--quiet", f"--output=parquet:{folder}/flows", "--features=cic@1"]
    assert flows.main(arguments) == 0
    return folder / "flows"


def shown(page):
    """Each query of a page with its output, as lines of words."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    pairs = re.findall(r"```sql\n([^`]*(?:`[^`\n]+`[^`]*)*)```\n\n```text\n([^`]*)```", text)
    assert len(pairs) == 3
    return [(query, [line.split() for line in output.splitlines()]) for query, output in pairs]


def answers(database, query):
    relation = database.sql(query)
    return [relation.columns, *([str(value) for value in row] for row in relation.fetchall())]


def test_the_page_of_parquet(demo):
    """The view is made as the page makes it, and finds each flow once where files are there twice."""
    with duckdb.connect() as database:
        text = (DOCS / "parquet.md").read_text(encoding="utf-8")
        (view,) = re.findall(r"```sql\n(CREATE VIEW .*?)```", text, re.DOTALL)
        twice = f"['{demo}/*/*.parquet', '{demo}/*/*.parquet']"
        database.sql(view.replace("'flows/*/*.parquet'", twice))
        for query, output in shown("parquet"):
            assert answers(database, query) == output


def test_the_page_of_kafka(demo, tmp_path):
    """Its view, on messages that are there twice, answers the queries of the page of Parquet as files do."""
    lines = [line for batch in pq.read_table(demo).to_batches() for line in kafka.JsonMessages().messages(batch)]
    (tmp_path / "flows.jsonl").write_bytes(b"".join(line + b"\n" for line in lines + lines))
    with duckdb.connect() as database:
        text = (DOCS / "kafka_sink.md").read_text(encoding="utf-8")
        (view,) = re.findall(r"```sql\n(CREATE VIEW .*?)```", text, re.DOTALL)
        database.sql(view.replace("'flows.jsonl'", f"'{tmp_path}/flows.jsonl'"))
        for query, output in shown("parquet"):
            assert answers(database, query) == output


def test_the_page_of_bigquery(demo, monkeypatch):
    """On rows as BigQuery has them, by the view's own query; DuckDB knows the dialect as far as these go."""
    with BigQueryGate() as gate, duckdb.connect() as database:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", gate.endpoint)
        gate.datasets.add("test.net")
        assert bigquery.main(["--load", str(demo), "--table", "test.net.flows"]) == 0
        rows = gate.rows("test.net.flows")
        columns = ("flow_id", "record_number", "flow_start", "src_ip", "dst_ip", "dst_port", "protocol")
        columns += ("fwd_ip_octets", "rev_ip_octets", "rev_payload_octets")
        database.register("sent", _arrow(columns, rows + rows))
        database.sql("SET timezone = 'UTC'")
        database.sql("CREATE VIEW flows AS SELECT * REPLACE (make_timestamptz(flow_start) AS flow_start) FROM sent")
        query = gate.tables["test.net.flows_latest"]["view"]["query"]
        database.sql(f"CREATE VIEW latest AS {query.replace('`test.net.flows`', 'flows')}")
        for query, output in shown("bigquery"):
            assert answers(database, query.replace(TABLE, "latest")) == output


def _arrow(columns, rows):
    return pa.table({name: [row[name] for row in rows] for name in columns})
