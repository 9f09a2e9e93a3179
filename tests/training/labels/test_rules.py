from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_testing import START_NS, S, batch, flow

from training.labels import rules as rules_module
from training.labels.attacks import EITHER, FORWARD, REVERSE, Attack, FlowColumns
from training.labels.rules import ANY, FROM, TO, Rule, Rules

ATTACKER, VICTIM = "203.0.113.5", "192.168.0.9"


def claimed(rules: Rules, *flows: dict[str, Any]) -> list[tuple[int, int]]:
    """Flow and attack of each claim, in order."""
    claims = rules.claims(FlowColumns.of(batch(*flows)))
    return sorted((int(row), int(attack)) for one in claims for row, attack in zip(one.rows, one.attacks, strict=True))


def rule(**criteria: Any) -> Rule:
    return Rule(Attack("a", "", "t:2"), **criteria)


def holds(made: Rule, **columns: Any) -> bool:
    return bool(claimed(Rules([made]), flow(**columns)))


@pytest.mark.parametrize(
    ("criteria", "columns", "expected"),
    [
        ({"attackers": (ATTACKER,)}, {"src_ip": ATTACKER}, True),
        ({"attackers": (ATTACKER,)}, {"dst_ip": ATTACKER}, True),
        ({"attackers": (ATTACKER,)}, {}, False),
        ({"attackers": (ATTACKER,), "direction": FROM}, {"dst_ip": ATTACKER}, False),
        ({"attackers": (ATTACKER,), "direction": TO}, {"dst_ip": ATTACKER}, True),
        ({"attackers": (ATTACKER,), "direction": TO}, {"src_ip": ATTACKER}, False),
        ({"attackers": ("203.0.113.0/24", "::/0")}, {"src_ip": "203.0.113.200"}, True),
        ({"attackers": ("::/0",)}, {"src_ip": "fe80::1", "dst_ip": "fe80::2"}, True),
        ({"attackers": ("::/0",)}, {}, False),
        ({"attackers": ("::/0",), "victims": ("10.0.0.0/8",)}, {}, False),
        ({"attackers": ("10.0.0.1", "::/0"), "victims": ("0.0.0.0/0",)}, {}, True),
        ({"attackers": ("2001:db8::/32",)}, {"src_ip": "2001:db8:1::7"}, True),
        ({"attackers": ("10.0.0.0/8",), "victims": ("192.168.0.0/16",)}, {}, True),
        ({"attackers": ("10.0.0.0/8",), "victims": ("192.168.1.0/24",)}, {}, False),
        ({"victims": ("10.0.0.0/8",), "attackers": ("192.168.0.0/16",)}, {}, True),
        ({"victims": ("10.0.0.0/8",), "attackers": ("192.168.0.0/16",), "direction": FROM}, {}, False),
        ({"victims": (VICTIM,), "direction": FROM}, {}, True),
        ({"ports": ((80, 80),)}, {}, True),
        ({"ports": ((80, 80),)}, {"src_port": 80, "dst_port": 999}, True),
        ({"ports": ((80, 80),), "direction": FROM}, {"src_port": 80, "dst_port": 999}, False),
        ({"ports": ((1, 79), (81, 65535)), "direction": FROM}, {}, False),
        ({"ports": ((79, 80),)}, {}, True),
        ({"source_ports": ((53, 53),)}, {"src_port": 53}, True),
        ({"source_ports": ((53, 53),)}, {"dst_port": 53}, False),
        ({"protocols": (6, 17)}, {"protocol": 17}, True),
        ({"protocols": (6, 17)}, {"protocol": 1}, False),
    ],
)
def test_criteria(criteria, columns, expected):
    assert holds(rule(**criteria), **columns) is expected


@pytest.mark.parametrize(
    ("start_s", "length_s", "starts_within", "overlaps"),
    [(-2, 1, False, False), (-1, 1, False, True), (0, 0, True, True), (5, 20, True, True), (10, 0, True, True),
     (10.000000001, 1, False, False), (-5, 50, False, True)],
    ids=["before", "into-the-start", "at-the-start", "out-of-the-end", "at-the-end", "after", "around"],
)  # fmt: skip
def test_a_flow_starts_within_an_attack_or_overlaps_it(start_s, length_s, starts_within, overlaps):
    made = rule(start_ns=START_NS, end_ns=START_NS + 10 * S)
    one = flow(start_s=start_s, length_s=length_s)
    assert bool(claimed(Rules([made]), one)) is starts_within
    assert bool(claimed(Rules([made], overlap=True), one)) is overlaps


def test_slack_widens_times():
    made = Rules([rule(start_ns=START_NS, end_ns=START_NS)], slack_ns=S)
    flows = [flow(start_s=start) for start in (-1.1, -1, 1, 1.1)]
    assert claimed(made, *flows) == [(1, 0), (2, 0)]
    assert claimed(Rules([rule(ports=((80, 80),))], slack_ns=S), flow()) == [(0, 0)]


@pytest.mark.parametrize(
    ("criteria", "columns", "side"),
    [
        ({"attackers": (ATTACKER,)}, {"src_ip": ATTACKER}, FORWARD),
        ({"attackers": (ATTACKER,)}, {"dst_ip": ATTACKER}, REVERSE),
        ({"attackers": (ATTACKER,)}, {"src_ip": ATTACKER, "dst_ip": ATTACKER}, EITHER),
        ({"ports": ((80, 80),)}, {}, EITHER),
        ({"ports": ((80, 80),), "direction": FROM}, {}, FORWARD),
        ({"attackers": (ATTACKER,), "direction": TO}, {"dst_ip": ATTACKER}, FORWARD),
        ({"victims": (VICTIM,)}, {}, FORWARD),
    ],
)
def test_which_side_attacks(criteria, columns, side):
    """An infected host that calls its controller acts for it."""
    (claims,) = Rules([rule(**criteria)]).claims(FlowColumns.of(batch(flow(**columns))))
    assert claims.sides.tolist() == [side]


def test_rules_of_one_attack_claim_a_flow_once():
    """Notices of one kind are one attack."""
    attack = Attack("scan", "", "notice.log", events=3)
    several = Rules(
        [Rule(attack, attackers=("10.0.0.1",)), Rule(attack, ports=((80, 80),)), Rule(attack, protocols=(99,))]
    )
    assert claimed(several, flow(), flow(src_ip="10.0.0.2")) == [(0, 0), (1, 0)]
    assert several.attacks == [attack]
    assert several.unmatched_events().tolist() == [1]


def test_a_batch_without_flows():
    assert list(Rules([rule(ports=((80, 80),))]).claims(FlowColumns.of(batch()))) == []


criteria = st.fixed_dictionaries(
    {},
    optional={
        "start_ns": st.integers(0, 20).map(lambda s: START_NS + s * S),
        "end_ns": st.integers(5, 30).map(lambda s: START_NS + s * S),
        "attackers": st.sampled_from([("10.0.0.0/31",), ("10.0.0.2", "10.0.0.3"), ("0.0.0.0/0",), ("::/0",)]),
        "victims": st.sampled_from([("10.0.0.1",), ("10.0.0.2/31",)]),
        "ports": st.sampled_from([((1, 2),), ((0, 0), (3, 9))]),
        "source_ports": st.sampled_from([((1, 2),)]),
        "protocols": st.sampled_from([(6,), (17, 1)]),
        "direction": st.sampled_from([ANY, FROM, TO]),
    },
)
addresses = st.integers(0, 3).map(lambda n: f"10.0.0.{n}")
flows_drawn = st.fixed_dictionaries(
    {"src_ip": addresses, "dst_ip": addresses, "src_port": st.integers(0, 4), "dst_port": st.integers(0, 4),
     "protocol": st.sampled_from([1, 6, 17]), "start_s": st.integers(0, 30), "length_s": st.integers(0, 9)}
)  # fmt: skip


def plainly(made: Rule, row: dict[str, Any], overlap: bool) -> bool:
    """A rule, flow by flow, in plain Python."""
    import ipaddress

    def inside(address: str, networks: tuple[str, ...]) -> bool:
        return not networks or any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in networks)

    def in_ranges(port: int, ranges: Any) -> bool:
        return not ranges or any(first <= port <= last for first, last in ranges)

    last = row["flow_end_ns"] if overlap else row["flow_start_ns"]
    either = made.direction == ANY and in_ranges(row["src_port"], made.ports)
    forward = inside(row["src_ip"], made.attackers) and inside(row["dst_ip"], made.victims)
    reverse = inside(row["dst_ip"], made.attackers) and inside(row["src_ip"], made.victims)
    return (
        row["flow_start_ns"] <= made.end_ns
        and last >= made.start_ns
        and (not made.protocols or row["protocol"] in made.protocols)
        and in_ranges(row["src_port"], made.source_ports)
        and (in_ranges(row["dst_port"], made.ports) or either)
        and ((forward and made.direction != TO) or (reverse and made.direction != FROM))
    )


@given(st.lists(criteria, min_size=1, max_size=4), st.lists(flows_drawn, max_size=8), st.booleans(), st.randoms())
@settings(max_examples=50, deadline=None)
def test_rules_hold_as_in_plain_python(several, drawn, overlap, random):
    """Whatever the order of the flows."""
    made = [Rule(Attack("a", "", f"t:{place}"), **one) for place, one in enumerate(several)]
    rows = [flow(**columns) for columns in drawn]
    random.shuffle(rows)
    expected = [
        (at, place) for at, row in enumerate(rows) for place, one in enumerate(made) if plainly(one, row, overlap)
    ]
    assert claimed(Rules(made, overlap), *rows) == expected


def test_matches_are_handed_on_some_at_a_time(monkeypatch):
    """So that many rules for many flows do not fill memory; each flow's are together."""
    monkeypatch.setattr(rules_module, "ROOM", 0)
    made = Rules(
        [Rule(Attack("a", "", f"t:{n}"), attackers=("10.0.0.0/8",), victims=("10.1.0.0/16", VICTIM)) for n in range(3)]
    )
    flows = [
        flow(),
        flow(src_ip="10.1.2.3", dst_ip="10.0.0.4"),
        flow(dst_ip="10.0.0.4"),
        flow(src_ip=VICTIM, dst_ip="10.0.0.4"),
    ]
    several = list(made.claims(FlowColumns.of(batch(*flows))))
    assert [claims.rows.tolist() for claims in several] == [[0] * 3, [1] * 3, [3] * 3]
    assert [claims.attacks.tolist() for claims in several] == [[0, 1, 2]] * 3
    assert [claims.sides.tolist() for claims in several] == [[FORWARD] * 3, [REVERSE] * 3, [REVERSE] * 3]


def test_times_at_the_ends_of_the_clock():
    """Open intervals and slack do not overflow."""
    made = Rules([rule(ports=((80, 80),))], overlap=True, slack_ns=10**18)
    assert claimed(made, flow(start_s=0)) == [(0, 0)]
