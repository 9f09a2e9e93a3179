from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_testing import START_NS, S, batch, flow

from training.labels.attacks import Attack, FlowColumns
from training.labels.events import (
    ANYTIME,
    AT_FIRST,
    BY_COMMUNITY_ID,
    BY_ENDS,
    BY_FLOW_ID,
    EventColumns,
    Events,
    address_numbers,
    ends_keys,
    hex_keys,
    id_keys,
)
from transforms.records import ICMP, TCP


def ends(*tuples: tuple[str, int, str, int, int]) -> np.ndarray:
    """Keys of addresses, ports and protocol."""
    src, src_port, dst, dst_port, protocol = map(list, zip(*tuples, strict=True))
    return ends_keys(address_numbers(src), address_numbers(dst), *map(np.array, (src_port, dst_port, protocol)))


def events(keys: np.ndarray, at_s: list[float], attack: list[int], **details: Any) -> Events:
    attacks = [
        Attack(f"a{number}", "", "log", events=attack.count(number)) for number in range(max(attack, default=0) + 1)
    ]
    times = np.array([START_NS + round(at * 1e9) for at in at_s], np.int64)
    return Events(attacks, EventColumns(keys, times, np.array(attack, np.int64)), **details)


def found(made: Events, *flows: dict[str, Any]) -> list[tuple[int, int]]:
    claims = made.claims(FlowColumns.of(batch(*flows)))
    return [(int(row), int(attack)) for one in claims for row, attack in zip(one.rows, one.attacks, strict=True)]


ENDS = ("10.0.0.1", 40_000, "192.168.0.9", 80, TCP)


def test_an_alert_is_of_the_flow_that_was_open():
    made = events(ends(ENDS), [10], [0])
    flows = [flow(start_s=start, length_s=length) for start, length in ((0, 9.9), (9, 2), (10, 0), (10.1, 5))]
    assert found(made, *flows) == [(1, 0), (2, 0)]
    assert made.unmatched_events().tolist() == [0]


def test_either_direction_is_the_flow():
    turned = ("192.168.0.9", 80, "10.0.0.1", 40_000, TCP)
    assert ends(ENDS) == ends(turned)
    assert found(events(ends(turned), [0], [0]), flow()) == [(0, 0)]


@pytest.mark.parametrize("changed", [{"src_port": 1}, {"dst_port": 1}, {"protocol": 17}, {"src_ip": "10.0.0.2"},
                                     {"dst_ip": "192.168.0.8"}, {"src_ip": "::1"}])  # fmt: skip
def test_another_flow_is_none(changed):
    made = events(ends(ENDS), [0], [0])
    assert found(made, flow(**changed)) == []
    assert made.unmatched_events().tolist() == [1]


def test_ports_stay_with_their_address():
    """The same ports the other way round are another flow; equal addresses are told apart by ports."""
    assert ends(ENDS) != ends(("10.0.0.1", 80, "192.168.0.9", 40_000, TCP))
    assert ends(("10.0.0.1", 5, "10.0.0.1", 4, TCP)) == ends(("10.0.0.1", 4, "10.0.0.1", 5, TCP))


def test_icmp_has_no_ports():
    made = events(ends(("10.0.0.1", 0, "192.168.0.9", 0, ICMP)), [0], [0])
    assert found(made, flow(src_port=8, dst_port=0, protocol=ICMP)) == [(0, 0)]


def test_slack_and_the_events_of_a_flow_by_precedence():
    made = events(ends(ENDS, ENDS, ENDS), [0.5, -0.5, 1.5], [1, 0, 1], slack_ns=S // 2)
    assert found(made, flow(start_s=0, length_s=1)) == [(0, 0), (0, 1)]
    assert events(ends(ENDS), [-0.6], [0], slack_ns=S // 2).claims(FlowColumns.of(batch(flow()))) == []


def test_an_event_is_matched_however_many_batches_there_are():
    made = events(ends(ENDS, ENDS, ("1.1.1.1", 1, "2.2.2.2", 2, 6)), [0, 100, 0], [0, 0, 1])
    assert made.unmatched_events().tolist() == [2, 1]
    for start in (0, 0, 50):
        found(made, flow(start_s=start))
    assert made.unmatched_events().tolist() == [1, 1]


def test_truth_is_found_by_the_first_packet():
    made = events(ends(ENDS, ENDS), [0, 0.5], [0, 1], by=BY_ENDS, when=AT_FIRST)
    assert found(made, flow(start_s=0), flow(start_s=0.5), flow(start_s=0.25)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("number", [0, 1, 256, 2**127], ids=["zeros", "one", "zero-at-the-end", "high"])
def test_flow_ids_are_found_whatever_their_octets(number):
    hex_text = number.to_bytes(16, "little").hex()
    keys = hex_keys(pa.array([hex_text, "f" * 32]))
    assert keys is not None
    made = events(keys, [0, 0], [0, 1], by=BY_FLOW_ID, when=ANYTIME)
    assert found(made, flow(number), flow(77)) == [(0, 0)]
    assert (hex_keys(pa.array([hex_text.upper()])) == keys[:1]).all()


@pytest.mark.parametrize("wrong", [["ab"], ["g" * 32], [None], ["f" * 33], ["f" * 32, ""]])
def test_what_is_no_flow_id(wrong):
    assert hex_keys(pa.array(wrong, pa.string())) is None


def test_community_ids():
    keys = id_keys(pa.array(["1:LQU9qZlK+B5F3KDmev6m5PMibrg="]))
    made = events(keys, [0.5], [0], by=BY_COMMUNITY_ID)
    flows = [flow(community_id=one) for one in ("1:LQU9qZlK+B5F3KDmev6m5PMibrg=", None, "1:x")]
    assert made.columns == ("community_id",)
    assert found(made, *flows) == [(0, 0)]


def test_no_flows_and_flows_without_events():
    made = events(ends(ENDS), [0], [0])
    assert found(made) == []
    assert found(made, flow(src_ip="9.9.9.9"), flow(dst_ip="9.9.9.9")) == []


small = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1))


@given(st.lists(st.tuples(small, st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=12),
       st.lists(st.tuples(small, st.integers(0, 12), st.integers(0, 4)), max_size=8), st.integers(0, 2))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_events_are_found_as_in_plain_python(told, drawn, slack):
    """Every pair of a flow and what an event of it says, once; every event that is in no flow."""

    def tuple_of(ends_drawn: tuple[int, int, int, int]) -> tuple[str, int, str, int, int]:
        a, b, c, d = ends_drawn
        return (f"10.0.0.{a}", b, f"10.0.0.{c}", d, TCP)

    made = events(ends(*(tuple_of(one) for one, _, _ in told)), [at for _, at, _ in told], [a for *_, a in told],
                  slack_ns=slack * S)  # fmt: skip
    flows, pairs, used = [], set(), set()
    for row, (of, start, length) in enumerate(drawn):
        src, src_port, dst, dst_port, _ = tuple_of(of)
        flows.append(flow(src_ip=src, src_port=src_port, dst_ip=dst, dst_port=dst_port, start_s=start, length_s=length))
        for place, (event, at, attack) in enumerate(told):
            same = {(src, src_port), (dst, dst_port)} == {tuple_of(event)[:2], tuple_of(event)[2:4]}
            if same and start - slack <= at <= start + length + slack:
                pairs.add((row, attack))
                used.add(place)
    assert found(made, *flows) == sorted(pairs)
    unmatched = [attack for place, (*_, attack) in enumerate(told) if place not in used]
    assert made.unmatched_events().tolist() == np.bincount(unmatched, minlength=len(made.attacks)).tolist()
