import hashlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.drift.answers import ANSWERS, LABELS, id_halves, judge, match
from transforms.model.folder import Model


def model(task="binary", classes=("benign", "attack")):
    return Model("m", "", "", task, "cic@1", (), classes, "benign", 0.5, {}, {})


def flow_id(number):
    return hashlib.md5(str(number).encode()).digest()


def answers(*given_):
    rows = [
        {"flow_id": flow_id(number), "flow_end_ns": number, "predicted_class": name, "model_id": "m-1"}
        for number, name in given_
    ]
    return pa.RecordBatch.from_pylist(rows, ANSWERS)


def labels(*given_):
    return pa.RecordBatch.from_pylist([{"flow_id": flow_id(number), "label": name} for number, name in given_], LABELS)


def numbers(batch):
    return sorted(batch["flow_end_ns"].to_pylist())


def test_answers_meet_the_labels_of_their_flow():
    """The last of several labels counts, and is used up with the others."""
    met = match(answers((1, "a"), (2, "b"), (3, "c")), labels((2, "x"), (9, "y"), (2, "z")))
    assert met.known.select(["flow_end_ns", "label"]).to_pylist() == [{"flow_end_ns": 2, "label": "z"}]
    assert numbers(met.answers) == [1, 3]
    assert met.labels["label"].to_pylist() == ["y"]


@given(st.lists(st.integers(0, 20), unique=True), st.lists(st.integers(0, 20)))
@settings(max_examples=50)
def test_nothing_is_lost_where_they_meet(flows, labelled):
    met = match(answers(*((number, "a") for number in flows)), labels(*((number, "x") for number in labelled)))
    assert numbers(met.known) == sorted(set(flows) & set(labelled))
    assert numbers(met.answers) == sorted(set(flows) - set(labelled))
    assert sorted(met.labels["flow_id"].to_pylist()) == sorted(flow_id(one) for one in labelled if one not in flows)


@pytest.mark.parametrize(
    ("task", "answer", "label", "wrong"),
    [
        ("binary", "attack", "attack", False),
        ("binary", "attack", "syn_flood", False),
        ("binary", "benign", "BENIGN ", False),
        ("binary", "benign", "syn_flood", True),
        ("binary", "attack", "benign", True),
        ("multiclass", "syn_flood", "Syn_Flood", False),
        ("multiclass", "syn_flood", "udp_flood", True),
        ("binary", "attack", "", None),
        ("binary", "attack", None, None),
        ("multiclass", None, "x", None),
    ],
)
def test_answers_are_judged_by_the_kind_of_model(task, answer, label, wrong):
    """None: it says nothing."""
    known = match(answers((7, answer)), labels((7, label))).known
    classes = ("benign", "attack") if task == "binary" else ("benign", "syn_flood", "udp_flood")
    judged = judge(known, model(task, classes))
    assert judged["wrong"].tolist() == ([] if wrong is None else [wrong])
    assert judged["end_ns"].tolist() == [7] * len(judged)


def test_halves_of_ids_are_in_the_order_of_their_octets():
    """Of slices, too."""
    ids = pa.array([flow_id(number) for number in range(50)], pa.binary(16))
    halves = id_halves(ids[10:40])
    assert [(int(high) << 64) + int(low) for high, low in halves] == [
        int.from_bytes(flow_id(number), "big") for number in range(10, 40)
    ]
    assert id_halves(ids[:0]).shape == (0, 2)
