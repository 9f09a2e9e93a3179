"""Ports of later fragments: whose they are, for how long, and how much is remembered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.fragments import FRAGMENT, REMEMBERED_NS, FragmentTable
from transforms.records import FRAGMENT_FIRST, FRAGMENT_LATER, FRAGMENT_NONE, FRAGMENT_RESOLVED, PACKET

SECOND = 10**9


def fragments(*rows: dict) -> np.ndarray:
    """Packets from one host to another, UDP, identification 7, VLAN 0, unless said otherwise."""
    packets = np.zeros(len(rows), PACKET)
    packets["ip_version"], packets["protocol"], packets["vni"], packets["fragment_id"] = 4, 17, -1, 7
    packets["src_lo"], packets["dst_lo"] = 1, 2
    for packet, columns in zip(packets, rows, strict=True):
        for name, value in columns.items():
            packet[name] = value
    return packets


def first(at_s: float = 0, **columns: int) -> dict:
    return {"time_ns": int(at_s * SECOND), "fragment": FRAGMENT_FIRST, "src_port": 1234, "dst_port": 53, **columns}


def later(at_s: float = 0, **columns: int) -> dict:
    return {"time_ns": int(at_s * SECOND), "fragment": FRAGMENT_LATER, **columns}


def resolved(*rows: dict) -> np.ndarray:
    packets = fragments(*rows)
    FragmentTable().resolve(packets)
    return packets


def test_later_fragments_take_the_ports_of_their_first():
    """They are marked; the first one stays what it is."""
    packets = resolved(first(), later(1), later(2))
    assert packets["src_port"].tolist() == [1234] * 3
    assert packets["dst_port"].tolist() == [53] * 3
    assert packets["fragment"].tolist() == [FRAGMENT_FIRST, FRAGMENT_RESOLVED, FRAGMENT_RESOLVED]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("src_hi", 9),
        ("src_lo", 9),
        ("dst_hi", 9),
        ("dst_lo", 9),
        ("fragment_id", 9),
        ("vlan_id", 9),
        ("vni", 9),
        ("protocol", 6),
        ("ip_version", 6),
    ],
)
def test_every_part_of_the_key_counts(name, value):
    """A fragment of another packet stays without ports."""
    packets = resolved(first(), later(1, **{name: value}))
    assert (packets["src_port"][1], packets["fragment"][1]) == (0, FRAGMENT_LATER)


@pytest.mark.parametrize(
    ("after_ns", "fragment"), [(REMEMBERED_NS - 1, FRAGMENT_RESOLVED), (REMEMBERED_NS, FRAGMENT_LATER)]
)
def test_ports_are_forgotten_after_30_s(after_ns, fragment):
    """Exactly 30 s after the first is too late."""
    assert resolved(first(), later(time_ns=after_ns))["fragment"][1] == fragment


def test_a_fragment_before_its_first_is_counted():
    """So is one whose first was never seen."""
    table = FragmentTable()
    packets = fragments(later(0), first(1), later(2), later(2, fragment_id=8), {"fragment": FRAGMENT_NONE})
    table.resolve(packets)
    assert table.unresolved == 2
    assert packets["src_port"].tolist() == [0, 1234, 1234, 0, 0]


def test_an_identification_that_returns_has_the_newer_ports():
    """The last first fragment counts, and its 30 s."""
    packets = resolved(first(0), first(29, src_port=9), later(58))
    assert packets["src_port"][2] == 9


def test_the_table_outlives_a_batch():
    """Fragments are resolved across calls."""
    table = FragmentTable()
    table.resolve(fragments(first()))
    packets = fragments(later(1))
    table.resolve(packets)
    assert packets["src_port"].tolist() == [1234]
    table.resolve(packets[:0])
    assert table.unresolved == 0


def test_ports_0_of_a_first_fragment_are_known_ports():
    """A protocol without ports, or a first fragment too short for them: the later ones are of the same flow."""
    assert resolved(first(src_port=0, dst_port=0), later())["fragment"][1] == FRAGMENT_RESOLVED


def test_ten_thousand_open_packets_are_all_resolved():
    """The table grows to what is open; nothing is forgotten."""
    count = 10_000
    table = FragmentTable()
    packets = fragments(
        *[first(1, fragment_id=i, src_port=i) for i in range(count)], *[later(2, fragment_id=i) for i in range(count)]
    )
    table.resolve(packets)
    assert packets["src_port"][count:].tolist() == list(range(count))
    assert (table.unresolved, table.forgotten) == (0, 0)


def test_memory_is_bounded():
    """Expired places are used again; at the limit the oldest gives way, which is counted."""
    table = FragmentTable(largest=256)
    for second in range(0, 1200, 60):
        table.resolve(fragments(*[first(second, fragment_id=second << 16 | i) for i in range(100)]))
    assert table.forgotten == 0
    table.resolve(fragments(*[first(2000, fragment_id=i) for i in range(300)]))
    assert table.forgotten >= 44
    packets = fragments(later(2001, fragment_id=299))
    table.resolve(packets)
    assert packets["fragment"][0] == FRAGMENT_RESOLVED
    assert FRAGMENT.itemsize == 56


EVENTS = st.lists(
    st.tuples(st.integers(0, 20 * SECOND), st.booleans(), st.integers(0, 300), st.integers(1, 3)), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(1, 60))
def test_any_batching_resolves_as_a_dictionary_does(events, batch):
    """Against ten lines of Python, over any cut into batches."""
    rows, now, remembered, expected, unresolved = [], 0, {}, [], 0
    for i, (gap, begins, identification, address) in enumerate(events):
        now += gap
        key = (identification, address)
        if begins:
            remembered[key] = (now, i + 1)
            expected.append(i + 1)
        else:
            at, port = remembered.get(key, (-REMEMBERED_NS, 0))
            known = now - at < REMEMBERED_NS
            expected.append(port if known else 0)
            unresolved += not known
        kind = first if begins else later
        rows.append(kind(time_ns=now, fragment_id=identification, src_lo=address, src_port=i + 1 if begins else 0))
    packets, table = fragments(*rows), FragmentTable()
    for start in range(0, len(packets), batch):
        table.resolve(packets[start : start + batch])
    assert packets["src_port"].tolist() == expected
    assert table.unresolved == unresolved
