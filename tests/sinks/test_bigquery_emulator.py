"""Against the BigQuery emulator: tables, rows and every view, by Google's own parser of SQL.

Only where `make servers-bigquery` has built it. What it cannot do is proved on `servers.bigquery_gate` alone
(test_bigquery.py): refusing rows, dropping what comes twice, adding columns; and load jobs and lists of STRUCTs,
for which its own errors stand here, so that a version that can will be noticed.
"""

import base64
import secrets
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest
import sink_testing
from servers.bigquery import DATASET, PROJECT
from sink_testing import rows_of_bigquery

from sinks import bigquery as command
from sinks import bigquery_client, bigquery_views
from transforms.records import InputError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bigquery")]

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def client(bigquery, monkeypatch):
    """Google's client; sinks write to the same server."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery.endpoint)
    with bigquery.client() as opened:
        yield opened


@pytest.fixture
def table(client):
    """A table that is not there yet."""
    return f"{PROJECT}.{DATASET}.t{secrets.token_hex(4)}"


def asked(client, query):
    """The rows that a query finds, as `rows_of_bigquery` has them."""
    found = client.query_and_wait(query, retry=None, job_retry=None)
    return [{name: _plain(value) for name, value in row.items()} for row in found]


def _plain(value):
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    return base64.b64decode(value) if isinstance(value, bytes) else value  # it keeps octets as the base64 that came


def stored(client, table):
    found = asked(client, f"SELECT * FROM `{table}`")
    return sorted(found, key=lambda row: (row["flow_id"], row["record_number"]))


def test_every_view_of_a_new_table_is_sql(client, table, capsys):
    """Made by the command; each answers, with nothing yet. A second run finds all of it there."""
    words = ["--setup", "--table", table]
    assert command.main(words) == 0
    assert capsys.readouterr().out.startswith(f"made: table {table}, view ")
    made = client.get_table(table)
    assert (made.time_partitioning.type_, made.time_partitioning.field) == ("DAY", "flow_start")
    assert made.clustering_fields == ["src_ip", "dst_ip", "predicted_class"]
    for view in bigquery_views.VIEWS:
        assert asked(client, f"SELECT * FROM `{table}_{view.name}`") == []
    assert command.main(words) == 0
    assert capsys.readouterr().out == "all is there already\n"


def test_every_column_comes_back_as_it_went_in(client, table):
    """Nulls, 64 bits, IPv6, nanoseconds, Unicode, lists."""
    batch = sink_testing.extreme_flows(['tap "1"\\ \n', "äöü 🜁", None])
    counters = sink_testing.write(f"bigquery:{table}", [batch], ("flowbeam@1",))
    assert counters["records_written"] == 3
    expected = sorted(rows_of_bigquery(batch), key=lambda row: row["flow_id"])
    assert stored(client, table) == expected


def test_load_jobs_are_more_than_it_can(client, table, tmp_path, capsys):
    """It looks at the schema of a job that has none: whoever loads is told so in one line."""
    sink_testing.write(f"parquet:{tmp_path}/flows", [sink_testing.flows([1])])
    assert command.main(["--load", f"{tmp_path}/flows", "--table", table]) == 2
    told = capsys.readouterr().err
    assert told.startswith("flowbeam: --table: cannot ask BigQuery: ")
    assert told.endswith("runtime error: invalid memory address or nil pointer dereference\n")


def test_lists_of_structs_are_more_than_it_can(client, table, monkeypatch):
    """It makes SQL of a table's columns and leaves out what a STRUCT has."""
    monkeypatch.setattr(bigquery_client, "ASKED_S", 1.0)
    reasons = pa.list_(pa.struct([("feature", pa.string()), ("contribution", pa.float32())]))
    schema = sink_testing.schema_of().append(pa.field("explanation", reasons))
    with pytest.raises(InputError, match=r'explanation` ARRAY<STRUCT>.*Syntax error: Expected "<" but got ">"'):
        bigquery_client.prepare(bigquery_client.place_of("bigquery:t", table), schema)
