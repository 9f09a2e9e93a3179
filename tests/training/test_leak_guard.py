import numpy as np
import pytest

from training import leak_guard
from training.leak_guard import guard, left, lines, recall_alone
from training.rows import Found
from training.tables import Table
from transforms.records import InputError

ROWS = 400


def table(**columns):
    random = np.random.default_rng(1)
    plain = {"length": random.normal(size=ROWS).astype(np.float32)}
    labels = np.tile(np.array([0, 1], np.int32), ROWS // 2)
    values = {name: np.asarray(found, np.float32) for name, found in columns.items()}
    return Table(plain | values, labels, ("benign", "attack"))


def noise(name):
    return table(**{name: np.random.default_rng(2).normal(size=ROWS)})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Src IP", "an address"), ("Source IP", "an address"), ("Dst_IP", "an address"), ("srcip", "an address"),
        ("saddr", "an address"), ("id.orig_h", "an address"), ("dst_mac", "an address"), ("hostname", "an address"),
        ("Dst Port", "a port"), ("Destination Port", "a port"), ("sport", "a port"), ("id.resp_p", "a port"),
        ("Timestamp", "a time"), ("ts", "a time"), ("stime", "a time"), ("flow_start_ns", "a time"),
        ("StartTime", "a time"), ("bidirectional_first_seen_ms", "a time"), ("Date first seen", "a time"),
        ("Flow ID", "an identifier"), ("Flow_ID", "an identifier"), ("uid", "an identifier"),
        ("Unnamed: 0", "an identifier"), ("", "an identifier"), ("community_id", "an identifier"),
        ("attack_cat", "another label"), ("Label2", "another label"), ("Sub_Cat", "another label"),
    ],
)  # fmt: skip
def test_columns_are_known_by_name(name, reason):
    (leak,) = guard(noise(name), ())
    assert (leak.column, leak.reason, leak.allowed) == (name, reason, False)


@pytest.mark.parametrize(
    "name",
    ["Flow Duration", "Fwd IAT Total", "Idle Mean", "Init_Win_bytes_forward", "Total Fwd Packet", "ttl", "service",
     "src_bytes", "dst_host_count", "Active Mean", "Fwd Header Length", "num_ports", "flow_packets_per_s", "流量"],
)  # fmt: skip
def test_features_are_not_taken_for_leaks(name):
    assert guard(noise(name), ()) == []


def test_what_the_set_calls_identity_is_refused():
    rows = noise("Protocol")
    rows.found = Found(identities={"Protocol", "Flow ID"})
    leaks = guard(rows, ())
    assert [leak.column for leak in leaks] == ["Protocol"]
    assert left(rows, leaks) == ["length"]
    assert left(rows, guard(rows, ["Protocol"])) == ["length", "Protocol"]
    with pytest.raises(InputError, match="Flow ID is no column of numbers"):
        guard(rows, ["Flow ID"])


def test_a_counter_of_rows_is_refused():
    (leak,) = guard(table(column=np.arange(ROWS) + 7), ())
    assert leak.reason == "a number of the row"


def test_a_column_that_alone_tells_the_classes_apart_is_refused():
    """Whatever it is called, and whatever numbers stand for the classes."""
    random = np.random.default_rng(3)
    copy = np.where(np.arange(ROWS) % 2, 5.0, random.choice([1.0, 9.0], ROWS))
    (leak,) = guard(table(colour=copy), ())
    assert leak.reason.startswith("alone tells the classes apart")
    almost = copy.copy()
    almost[::40] = 5.0
    assert guard(table(colour=almost), ()) == []


def test_recall_alone_is_that_of_bins():
    """Worked out by hand: half of one class cannot be told from the other."""
    labels = np.repeat(np.array([0, 1]), 200)
    values = np.where(labels == 1, 1.0, np.arange(400) % 4 // 2).astype(np.float32)
    order = np.random.default_rng(0).permutation(400)
    assert recall_alone(values[order], labels[order], 2) == pytest.approx(0.75, abs=0.04)
    assert recall_alone(np.full(400, np.nan, np.float32), labels, 2) == 0
    assert recall_alone(values[:15], labels[:15], 2) == 0


def test_missing_values_may_tell_the_class():
    values = np.where(np.arange(ROWS) % 2, np.nan, np.random.default_rng(1).normal(size=ROWS)).astype(np.float32)
    assert recall_alone(values, np.arange(ROWS) % 2, 2) == 1


def test_allowed_leaks_stay_and_are_told():
    rows = noise("Dst Port")
    assert left(rows, guard(rows, ["all"])) == ["length", "Dst Port"]
    assert list(lines(guard(rows, ["Dst Port"]))) == [
        "Dst Port is learned from, as --allow_leaks says, though it is a port"
    ]
    assert list(lines(guard(rows, ()))) == ["refused: Dst Port (a port); --allow_leaks would keep it"]


def test_mistakes_are_one_line():
    with pytest.raises(InputError, match="--allow_leaks: no columns nothing"):
        guard(noise("Dst Port"), ["nothing"])
    with pytest.raises(InputError, match="no column is left to learn from; the leak guard refused Dst Port"):
        guard(noise("Dst Port").with_columns(["Dst Port"]), ())
    with pytest.raises(InputError, match="no column is left to learn from; the table has none beside its label"):
        guard(noise("Dst Port").with_columns([]), ())


def test_the_threshold_is_near_perfect():
    assert 0.99 < leak_guard.NEAR_PERFECT < 1
