"""The views beside a BigQuery table: each answers its question, and counts a flow once. DuckDB knows the dialect."""

import re
from datetime import datetime, timedelta, timezone

import duckdb
import pyarrow as pa
import pytest
from servers.bigquery_gate import BigQueryGate

from sinks import bigquery, bigquery_views

MONDAY = datetime(2026, 1, 5, 8, tzinfo=timezone.utc)
COLUMNS = ("flow_id", "record_number", "flow_start", "src_ip", "dst_ip", "octets", "is_alert", "score")


@pytest.fixture
def ask(tmp_path):
    """Asks a view of a table with these rows; what stands there twice, too."""

    def ask(name, rows, query="FROM {view}"):
        columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
        octets = columns.pop("octets")
        columns |= {"fwd_ip_octets": octets, "rev_ip_octets": [0] * len(rows), "protocol": [6] * len(rows)}
        columns |= {"sensor": ["north"] * len(rows), "src_port": [1024] * len(rows), "dst_port": [443] * len(rows)}
        columns |= {"predicted_class": ["scan" if alert else "benign" for alert in columns["is_alert"]]}
        with duckdb.connect() as database:
            database.sql("SET timezone = 'UTC'")
            database.register("sent", pa.table(columns))
            database.sql("CREATE TABLE flows AS FROM sent UNION ALL FROM sent")
            for view in bigquery_views.VIEWS:
                text = re.sub("`(.*?)`", r"\1", view.on("flows"))
                database.sql(f"CREATE VIEW flows_{view.name} AS {text}")
            return database.sql(query.format(view=f"flows_{name}")).fetchall()

    return ask


def row(flow, after=timedelta(0), src="10.0.0.1", dst="10.0.0.2", octets=100, alert=False, number=0):
    return (bytes([flow]), number, MONDAY + after, src, dst, octets, alert, 0.9 if alert else 0.1)


def test_alerts_are_those_of_the_last_record(ask):
    """A flow that was no alert at first is there, one that is none any more is not."""
    rows = [row(1), row(1, alert=True, number=1), row(2, alert=True), row(2, number=1), row(3)]
    found = ask("alerts", rows, "SELECT flow_start, src_ip, predicted_class, octets, flow_id FROM {view}")
    assert found == [(MONDAY, "10.0.0.1", "scan", 100, b"\x01")]


def test_talkers_are_the_hundred_of_each_day(ask):
    rows = [row(n, src=f"10.0.1.{n}", octets=1000 + n) for n in range(101)]
    rows += [row(200, timedelta(hours=1), "10.0.1.7", octets=5), row(201, timedelta(days=1), "10.0.1.0")]
    found = ask("talkers", rows, "SELECT day, src_ip, flows, octets FROM {view} ORDER BY day, octets DESC")
    assert len(found) == 101
    assert found[0] == (MONDAY.date(), "10.0.1.100", 1, 1100)
    assert (MONDAY.date(), "10.0.1.7", 2, 1012) in found
    assert "10.0.1.0" not in [src for day, src, *_ in found if day == MONDAY.date()]
    assert found[-1] == (MONDAY.date() + timedelta(days=1), "10.0.1.0", 1, 100)


def test_conversations_tell_since_when(ask):
    rows = [row(1), row(2, timedelta(days=1)), row(3, timedelta(days=1), dst="10.0.0.3"), row(1, number=1, octets=150)]
    query = "SELECT dst_ip, dst_port, first_seen, last_seen, flows, octets FROM {view} ORDER BY first_seen"
    later = MONDAY + timedelta(days=1)
    expected = [("10.0.0.2", 443, MONDAY, later, 2, 250), ("10.0.0.3", 443, later, later, 1, 100)]
    assert ask("conversations", rows, query) == expected


def test_the_command_makes_table_and_views(monkeypatch, capsys):
    """Once; a view of another version of the project is brought up to date."""
    with BigQueryGate() as gate:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", gate.endpoint)
        gate.datasets.add("test.net")
        words = ["--setup", "--table", "test.net.flows", "--features", "cic@1"]
        assert bigquery.main(words) == 0
        assert capsys.readouterr().out.startswith("made: table test.net.flows, view flows_latest, view flows_alerts, ")
        assert gate.tables["test.net.flows_talkers"]["view"]["query"] == bigquery_views.VIEWS[2].on("test.net.flows")
        gate.tables["test.net.flows_alerts"]["view"]["query"] = "SELECT 1"
        assert bigquery.main(words) == 0
        assert capsys.readouterr().out == "all is there already\n"
        assert "WHERE is_alert" in gate.tables["test.net.flows_alerts"]["view"]["query"]
        assert bigquery.main(["--setup"]) == 2
        assert "--setup: say where to, with --table PROJECT.DATASET.TABLE" in capsys.readouterr().err
        gate.tables["test.net.flows_alerts"] = gate.tables["test.net.flows"]
        assert bigquery.main(words) == 2
        assert "test.net.flows_alerts is a table, and no place for the view" in capsys.readouterr().err
