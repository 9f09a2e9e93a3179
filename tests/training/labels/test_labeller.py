import numpy as np
import pytest
from label_testing import batch, flow

from training.labels.attacks import ANSWER, NOTHING, PAYLOAD, Attack
from training.labels.events import EventColumns, Events
from training.labels.labeller import AS_BENIGN, ATTACK, FIELDS, LABEL, Labeller, LabelSettings, labelled_schema
from training.labels.rules import Rule, Rules
from transforms.records import InputError

ATTACKER = "203.0.113.5"


def attack(name: str = "dos", needs: str = PAYLOAD, category: str = "kind") -> Attack:
    return Attack(name, category, "t.csv:2", needs)


def labels(labeller: Labeller, *flows: dict) -> list[tuple]:
    """Label, category and source of each flow."""
    labelled = labeller.label(batch(*flows))
    return list(zip(*(labelled[field.name].to_pylist() for field in FIELDS), strict=True))


def test_an_attack_s_flow_has_its_name_category_and_source():
    labeller = Labeller([Rules([Rule(attack(), attackers=(ATTACKER,))])])
    assert labels(labeller, flow(src_ip=ATTACKER), flow()) == [("dos", "kind", "t.csv:2 dos"), ("benign", None, None)]
    assert labeller.labels == {"dos": 1, "benign": 1}


@pytest.mark.parametrize(
    ("needs", "fwd", "rev", "from_attacker", "is_attempt"),
    [
        (PAYLOAD, 1, 0, True, False),
        (PAYLOAD, 0, 9, True, True),
        (PAYLOAD, 0, 9, False, False),
        (PAYLOAD, 9, 0, False, True),
        (ANSWER, 1, 1, True, False),
        (ANSWER, 1, 0, True, True),
        (ANSWER, 0, 1, True, True),
        (NOTHING, 0, 0, True, False),
    ],
)
def test_an_attack_without_the_payload_it_needs_is_attempted(needs, fwd, rev, from_attacker, is_attempt):
    """Engelen et al. 2021: what the attackers' side must have sent, whichever side of the flow it is."""
    ends = {"src_ip": ATTACKER} if from_attacker else {"dst_ip": ATTACKER}
    labeller = Labeller([Rules([Rule(attack(needs=needs), attackers=(ATTACKER,))])])
    ((label, category, source),) = labels(labeller, flow(**ends, fwd_payload_octets=fwd, rev_payload_octets=rev))
    assert (label, category, source) == ("attempted" if is_attempt else "dos", "kind", "t.csv:2 dos")
    (row,) = labeller.table()
    assert (row.matched, row.labelled, row.attempted) == (1, 1 - is_attempt, int(is_attempt))


@pytest.mark.parametrize(("fwd", "rev", "label"), [(0, 0, "attempted"), (1, 0, "dos"), (0, 1, "dos")])
def test_where_the_attacker_is_unknown_either_side_s_payload_will_do(fwd, rev, label):
    labeller = Labeller([Rules([Rule(attack(), ports=((80, 80),))])])
    assert labels(labeller, flow(fwd_payload_octets=fwd, rev_payload_octets=rev))[0][0] == label


@pytest.mark.parametrize(
    ("as_what", "label", "labelled"), [(LABEL, "attempted", 0), (ATTACK, "dos", 1), (AS_BENIGN, "ok", 0)]
)
def test_what_attempted_attacks_are_called(as_what, label, labelled):
    """They are counted whatever they are called."""
    labeller = Labeller([Rules([Rule(attack(), ports=((80, 80),))])], LabelSettings("ok", as_what))
    silent = flow(fwd_payload_octets=0, rev_payload_octets=0)
    assert labels(labeller, silent, flow(dst_port=1)) == [(label, "kind", "t.csv:2 dos"), ("ok", None, None)]
    (row,) = labeller.table()
    assert (row.matched, row.labelled, row.attempted) == (1, labelled, 1)


def test_the_first_attack_counts_and_overlaps_are_told():
    first, second, third = (attack(name) for name in ("first", "second", "third"))
    rules = Rules(
        [Rule(first, ports=((80, 80),)), Rule(second, protocols=(6,)), Rule(third, attackers=("10.0.0.0/8",))]
    )
    labeller = Labeller([rules])
    flows = [flow(), flow(dst_port=1), flow(dst_port=1), flow(protocol=17, dst_port=1)]
    assert [label for label, *_ in labels(labeller, *flows)] == ["first", "second", "second", "third"]
    assert [(row.matched, row.labelled, row.lost) for row in labeller.table()] == [(1, 1, 0), (3, 2, 1), (4, 1, 3)]
    assert [(one.first.name, one.second.name, one.flows) for one in labeller.overlaps()] == [
        ("second", "third", 2), ("first", "second", 1), ("first", "third", 1),
    ]  # fmt: skip


def test_the_order_of_files_is_the_precedence():
    one, other = (Rules([Rule(attack(name), protocols=(6,))]) for name in ("one", "other"))
    assert labels(Labeller([one, other]), flow())[0][0] == "one"
    assert labels(Labeller([other, one]), flow())[0][0] == "other"


def test_batches_do_not_change_labels_or_counts():
    def made() -> Labeller:
        return Labeller([Rules([Rule(attack(), attackers=("10.0.0.0/31",)), Rule(attack("b"), ports=((1, 80),))])])

    flows = [flow(src_ip=f"10.0.0.{n % 5}", dst_port=70 + n, fwd_payload_octets=n % 2) for n in range(30)]
    at_once, apart = made(), made()
    whole = labels(at_once, *flows)
    assert whole == [label for one in flows for label in labels(apart, one)]
    assert at_once.table() == apart.table()
    assert at_once.overlaps() == apart.overlaps()
    assert at_once.labels == apart.labels


def test_truth_leaves_what_it_does_not_name_without_a_label():
    no_events = EventColumns(np.array([], "S38"), np.array([], np.int64), np.array([], np.int64))
    truth = Events([attack("benign")], no_events, names_every_flow=True)
    assert labels(Labeller([truth]), flow()) == [(None, None, None)]


def test_nothing_tells_and_no_flows():
    labeller = Labeller([])
    assert labels(labeller, flow()) == [("benign", None, None)]
    assert len(labeller.label(batch())) == 0
    assert labeller.table() == labeller.overlaps() == []


def test_other_columns_and_their_descriptions_stay():
    flows = batch(flow(7))
    labelled = Labeller([]).label(flows)
    assert labelled.schema == labelled_schema(flows.schema)
    assert labelled.select(flows.schema.names).equals(flows, check_metadata=True)
    assert labelled.schema.field("label").metadata[b"doc"].startswith(b"What the flow is")


def test_labels_of_before_are_replaced():
    once = Labeller([]).label(batch(flow()))
    again = Labeller([], LabelSettings("fine")).label(once)
    assert again.schema.names == once.schema.names
    assert again["label"].to_pylist() == ["fine"]


def test_flows_of_another_kind_are_refused_by_name():
    labeller = Labeller([])
    with pytest.raises(InputError, match=r"x\.parquet: has no column src_ip, dst_ip, src_port"):
        labeller.check(["a"], "x.parquet")
    labeller.check(batch().schema.names, "x.parquet")
