"""Flows in Cassandra, read back through its driver."""

import threading
import uuid
from collections.abc import Iterator

import alert_testing
import numpy as np
import pyarrow as pa
import pytest
import sink_testing
from cassandra import AuthenticationFailed
from servers.cassandra import PASSWORD, USER, CassandraServer
from servers.fixtures import need

from sinks import cassandra, cassandra_client, outputs
from sinks.blocks import BlockSender, Unavailable
from sinks.cassandra_cells import cells
from sinks.cassandra_tables import cql_type, tables_of
from sinks.outputs import parse_url
from transforms.records import InputError

pytestmark = pytest.mark.xdist_group("cassandra")

DAY = "2026-11-21"

NESTED = pa.list_(pa.struct([("name", pa.string()), ("by", pa.float32())]))


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_USERNAME", USER)
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_PASSWORD", PASSWORD)


@pytest.fixture
def keyspace(cassandra, credentials, request) -> Iterator[str]:
    """The URL of a keyspace of the test's own."""
    name = f"{request.node.originalname[:30]}_{uuid.uuid4().hex[:12]}"  # none is made where one was just dropped
    cassandra.create_keyspace(name)
    yield f"cassandra://{cassandra.address}/{name}?consistency=ONE"
    with cassandra.session() as session:
        session.execute(f"DROP KEYSPACE IF EXISTS {name}")  # a try repeated finds it gone


def opened(url, flows, **of) -> BlockSender:
    ((_, sink),) = outputs.open_outputs([url], alert_testing.context(flows, **of))
    return sink.sender()


def send(url, *blocks) -> list:
    sender = opened(url, blocks[0])
    try:
        return [reject for block in blocks for reject in sender.send(block).rejects]
    finally:
        sender.close()


def rows(server: CassandraServer, url: str, query: str) -> list[dict]:
    """What a query gives; `{}` in it stands for the keyspace."""
    keyspace = url.rpartition("/")[2].partition("?")[0]
    with server.session() as session:
        return list(session.execute(query.format(keyspace)))


def plain(row: dict) -> dict:
    """A row as Arrow would give it."""
    (made,) = sink_testing.rows_of_cassandra([row])
    return made


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([True, None, False]), "BooleanType"),
        (pa.array([-(2**31), None, 2**31 - 1], pa.int32()), "Int32Type"),
        (pa.array([0, 255], pa.uint8()), "Int32Type"),
        (pa.array([0, 2**32 - 1], pa.uint32()), "LongType"),
        (pa.array([-(2**63), None, 2**63 - 1], pa.int64()), "LongType"),
        (pa.array([0.1, None, float("inf")], pa.float32()), "FloatType"),
        (pa.array([0.1, None, float("-inf")], pa.float64()), "DoubleType"),
        (pa.array(["", None, "Zürich"]), "UTF8Type"),
        (pa.array(["a", None, "b", "a"]).dictionary_encode(), "UTF8Type"),
        (pa.array([b"\0", None], pa.binary()), "BytesType"),
        (pa.array([[1, -2], [], None, [3]], pa.list_(pa.int64())), "ListType(LongType)"),
        (pa.array([["a", "bc"], None], pa.list_(pa.string())), "ListType(UTF8Type)"),
        (pa.array([[("x", 0.5), (None, 1.0)], None], NESTED), "ListType(TupleType(UTF8Type, FloatType))"),
    ],
    ids=str,
)
def test_cells_are_what_the_driver_makes_of_the_values(array, kind):
    """Of the whole column and of a part of it; there is no server in this."""
    from cassandra.cqltypes import lookup_casstype

    made = lookup_casstype(kind)
    for part in (array, array.slice(1)):
        values = [
            [tuple(item.values()) if isinstance(item, dict) else item for item in one] if isinstance(one, list) else one
            for one in part.to_pylist()
        ]
        expected = [None if one is None else made.to_binary(one, 4) for one in values]
        assert list(cells(part, pa.field("column", array.type))) == expected


def test_types_follow_from_arrow():
    kinds = {field.name: cql_type(field) for field in alert_testing.scored([1], feature_sets=["flowbeam@1"]).schema}
    assert kinds["flow_id"] == "blob"
    assert kinds["src_ip"] == kinds["outer_dst_ip"] == "inet"
    assert kinds["src_port"] == "int"
    assert kinds["fwd_packets"] == "bigint"
    assert kinds["splt_direction"] == "frozen<list<int>>"
    assert kinds["explanation"] == "frozen<list<frozen<tuple<text, float>>>>"
    with pytest.raises(InputError, match="column since: CQL has no date32"):
        cql_type(pa.field("since", pa.date32()))


def test_every_field_comes_back(cassandra, keyspace):
    """Nulls, 64 bits, IPv6, nanoseconds, Unicode, lists; features are in the table by source alone."""
    rng = np.random.default_rng(3)
    flows = alert_testing.scored(
        range(3),
        [True, False, True],
        feature_sets=["flowbeam@1"],
        sensor=["Gerät \U0001f6f0", "a\"b'c\n", ""],
        src_ip=["2001:db8::1", "10.0.0.1", "10.0.0.2"],
        fwd_packets=[2**63 - 1, 0, 2**53 + 1],
        end_reason=[1, None, 255],
        splt_ip_octets=[[1, 2, 3], [], None],
        fwd_iat_mean_us=rng.random(3).tolist(),
    )
    counters = sink_testing.run([flows], outputs.open_outputs([keyspace], alert_testing.context(flows))[0][1])
    assert counters["records_written"] == 3
    expected = {row["flow_id"]: row for row in flows.to_pylist()}
    found = {}
    for source in ("2001:db8::1", "10.0.0.1", "10.0.0.2"):
        for row in rows(
            cassandra, keyspace, f"SELECT * FROM {{}}.flows_by_source WHERE src_ip='{source}' AND day='{DAY}'"
        ):
            assert str(row["day"]) == DAY
            found[row["flow_id"]] = plain(row)
    assert found == expected
    by_destination = rows(
        cassandra, keyspace, f"SELECT * FROM {{}}.flows_by_destination WHERE dst_ip='10.0.0.2' AND day='{DAY}'"
    )
    names = tables_of(flows.schema)[1].columns.names
    assert [plain(row) for row in by_destination] == [
        {
            name: expected[sink_testing.flow_id(number)][name]
            for name in sorted(names, key=list(plain(by_destination[0])).index)
        }
        for number in (2, 1, 0)
    ]
    assert "fwd_iat_mean_us" not in names
    in_hour = rows(
        cassandra, keyspace, "SELECT flow_id, explanation FROM {}.alerts_by_hour WHERE hour='2026-11-21T13:00Z'"
    )
    assert [row["flow_id"] for row in in_hour] == [sink_testing.flow_id(2), sink_testing.flow_id(0)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1)], ids=str)
def test_a_higher_record_replaces_a_lower_one_and_never_the_reverse(cassandra, keyspace, order):
    """Also where it has nothing: no cell of the lower record shines through; an alert that was taken back is gone."""
    first = alert_testing.scored([7], record_number=0, record_kind="interim", vni=5, fwd_packets=10)
    second = alert_testing.scored([7], False, record_number=1, end_reason=1, fwd_packets=20)
    send(keyspace, *((first, second)[number] for number in order))
    for table, place in (("source", "src_ip='10.0.0.1'"), ("destination", "dst_ip='10.0.0.2'")):
        (row,) = rows(cassandra, keyspace, f"SELECT * FROM {{}}.flows_by_{table} WHERE {place} AND day='{DAY}'")
        (expected,) = second.select([name for name in second.schema.names if name in row]).to_pylist()
        assert plain(row) == {name: expected[name] for name in plain(row)}
    assert rows(cassandra, keyspace, "SELECT * FROM {}.alerts_by_hour WHERE hour='2026-11-21T13:00Z'") == []


def test_rows_have_their_time_and_their_life(cassandra, keyspace):
    flows = sink_testing.flows([1], record_number=3)
    send(f"{keyspace}&ttl_days=2&window_days=3", flows)
    query = "SELECT ttl(sensor) AS ttl, writetime(sensor) AS time FROM {}.flows_by_source"
    (row,) = rows(cassandra, keyspace, f"{query} WHERE src_ip='10.0.0.1' AND day='{DAY}'")
    assert 2 * 86_400 - 600 < row["ttl"] <= 2 * 86_400
    assert row["time"] == sink_testing.START_NS // 1000 + 1_000_000 + 3
    query = "SELECT compaction, default_time_to_live FROM system_schema.tables WHERE keyspace_name='{}'"
    (table,) = rows(cassandra, keyspace, f"{query} AND table_name='flows_by_source'")
    assert table["default_time_to_live"] == 2 * 86_400
    assert table["compaction"]["compaction_window_size"] == "3"
    assert table["compaction"]["class"].endswith("TimeWindowCompactionStrategy")


def test_a_check_makes_nothing(cassandra, keyspace):
    """It says what a run would make."""
    flows = sink_testing.flows([1])
    context = alert_testing.context(flows, only_check=True)
    ((_, sink),) = outputs.open_outputs([keyspace], context)
    assert sink.makes == ("table flows_by_source", "table flows_by_destination")
    assert rows(cassandra, keyspace, "SELECT * FROM system_schema.tables WHERE keyspace_name = '{}'") == []
    send(keyspace, flows)
    ((_, sink),) = outputs.open_outputs([keyspace], context)
    assert sink.makes == ()
    wider = alert_testing.scored([1])
    ((_, sink),) = outputs.open_outputs([keyspace], alert_testing.context(wider, only_check=True))
    assert sink.makes == ("5 columns of flows_by_source", "5 columns of flows_by_destination", "table alerts_by_hour")


def test_columns_are_only_added(cassandra, keyspace):
    """A job with more columns adds them; one with fewer writes what it has; one with another type is refused."""
    send(keyspace, sink_testing.flows([1]))
    send(keyspace, alert_testing.scored([2], feature_sets=["flowbeam@1"]))
    send(keyspace, sink_testing.flows([3]))
    found = rows(
        cassandra, keyspace, f"SELECT model_id FROM {{}}.flows_by_source WHERE src_ip='10.0.0.1' AND day='{DAY}'"
    )
    assert [row["model_id"] for row in found] == [None, "demo-0123456789ab", None]
    other = sink_testing.flows([4])
    other = other.set_column(other.schema.names.index("sensor"), "sensor", pa.array([1], pa.int64()))
    with pytest.raises(InputError, match="column sensor of flows_by_source is text, not bigint; use another keyspace"):
        send(keyspace, other)


def test_a_row_that_is_refused_leaves_the_others_of_its_batch(cassandra, keyspace):
    """A key of more than 64 KB; the rows travel together."""
    flows = sink_testing.flows([1, 2, 3])
    long = pa.array([flows["flow_id"][0].as_py(), b"x" * 70_000, flows["flow_id"][2].as_py()], pa.binary())
    flows = flows.set_column(0, "flow_id", long)
    (reject,) = send(keyspace, flows)
    assert reject.step == "cassandra"
    assert "longer than maximum" in reject.reason
    assert b'"src_ip":"10.0.0.1"' in reject.payload
    found = rows(
        cassandra, keyspace, f"SELECT flow_id FROM {{}}.flows_by_source WHERE src_ip='10.0.0.1' AND day='{DAY}'"
    )
    assert [row["flow_id"] for row in found] == [long[2].as_py(), long[0].as_py()]


@pytest.mark.slow
def test_nothing_is_lost_while_the_node_is_away(credentials, tmp_path):
    """Killed between blocks and back later; then it stays away."""
    need("cassandra")
    blocks = [sink_testing.flows(range(first, first + 100)) for first in range(0, 1000, 100)]
    with CassandraServer(tmp_path / "cassandra") as server:
        server.create_keyspace("away")
        url = f"cassandra://{server.address}/away?consistency=ONE"
        sender = opened(url, blocks[0], retry_s=240)
        for block in blocks[:3]:
            sender.send(block)
        server.kill()
        back = threading.Thread(target=server.start)
        back.start()
        for block in blocks[2:]:
            assert sender.send(block).rejects == []
        back.join()
        sender.close()
        query = f"SELECT count(*) AS rows FROM {{}}.flows_by_source WHERE src_ip='10.0.0.1' AND day='{DAY}'"
        assert rows(server, url, query) == [{"rows": 1000}]
        impatient = opened(url, blocks[0], retry_s=0.1)
        impatient.send(blocks[0])
        server.kill()
        with pytest.raises(InputError, match="gave up after"):
            impatient.send(blocks[0])
        impatient.close()
        with pytest.raises(InputError, match="see that it is up and the address right"):
            opened(url, blocks[0])


def test_setup_makes_the_keyspace(cassandra, credentials, capsys):
    url = f"cassandra://{cassandra.address}/made_by_setup?consistency=ONE"
    with pytest.raises(InputError, match="no keyspace made_by_setup; make it with"):
        opened(url, sink_testing.flows([1]))
    assert cassandra_main("--setup", url) == 0
    assert capsys.readouterr().out == f"{url.partition('?')[0]}: ready\n"
    assert cassandra_main("--setup", url) == 0
    assert send(url, sink_testing.flows([1])) == []


def cassandra_main(*words: str) -> int:
    return cassandra.main(words)


def test_tls_checks_who_answers(cassandra, keyspace):
    send(f"{keyspace}&ca={cassandra.authority}", sink_testing.flows([1]))
    with pytest.raises(InputError, match=r"no TLS connection .*name the authority with ca=FILE"):
        opened(f"{keyspace}&security=tls", sink_testing.flows([1]))


def test_credentials_that_cannot_be_looked_up_are_tried_again():
    """The nodes that know users are away, and others say so in the words of a wrong password."""
    place = cassandra_client.place_of(parse_url("cassandra://127.0.0.1/flows"))
    said = "Failed to authenticate to 127.0.0.1:9042: Error from server: code=0100 [Bad credentials] message="
    away = AuthenticationFailed(f'{said}"Unable to perform authentication: Cannot achieve consistency level ONE"')
    with pytest.raises(Unavailable, match="Cannot achieve consistency level ONE"):
        cassandra_client.raise_plain(place, away)
    with pytest.raises(InputError, match="does not take the credentials"):
        cassandra_client.raise_plain(place, AuthenticationFailed(f'{said}"Provided username x is incorrect"'))


def test_wrong_credentials_and_missing_rights_are_one_line_at_start(cassandra, keyspace, monkeypatch, tmp_path):
    flows = sink_testing.flows([1])
    send(keyspace, flows)
    name = keyspace.rpartition("/")[2].partition("?")[0]
    with cassandra.session() as session:
        session.execute("CREATE ROLE IF NOT EXISTS reader WITH PASSWORD = 'reads' AND LOGIN = true")
        session.execute(f"GRANT SELECT ON KEYSPACE {name} TO reader")
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_USERNAME", "reader")
    with pytest.raises(InputError, match="does not take the credentials"):
        opened(keyspace, flows)
    (tmp_path / "password").write_text("reads\n")
    monkeypatch.setenv("FLOWBEAM_CASSANDRA_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(InputError, match=r"no permission .*MODIFY.*; GRANT SELECT, MODIFY, CREATE, ALTER ON KEYSPACE"):
        opened(keyspace, flows)
    monkeypatch.delenv("FLOWBEAM_CASSANDRA_USERNAME")
    with pytest.raises(InputError, match="both or none"):
        opened(keyspace, flows)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("//127.0.0.1", "write cassandra://HOST"),
        ("//user:secret@127.0.0.1/flows", "must not carry a password; set FLOWBEAM_CASSANDRA_USERNAME"),
        ("//127.0.0.1/flows?ttl_days=-1", "ttl_days=-1 is no number from 0 to 7300"),
        ("//127.0.0.1/flows?concurrency=many", "concurrency=many is no number from 1 to 2000"),
        ("//127.0.0.1/flows?consistency=SOME", "consistency=SOME is not one of LOCAL_QUORUM"),
        ("//127.0.0.1/flows?security=ssl", "security=ssl is not one of plaintext, tls"),
        ("//127.0.0.1/flows?ca=/nowhere.pem", "ca=/nowhere.pem cannot be read"),
        ("//127.0.0.1/flows?password=x", "unknown parameter 'password'"),
        ("//127.0.0.1:1/flows", "see that it is up and the address right"),
    ],
)
def test_settings_are_checked_at_start(place, line):
    with pytest.raises(InputError, match=line):
        opened(f"cassandra:{place}", sink_testing.flows([1]))
