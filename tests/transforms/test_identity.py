import hashlib
import ipaddress
import json
import os
import struct
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.identity import (
    ICMP_PAIRS,
    ICMPV6_PAIRS,
    ID_LAYOUT,
    KEY,
    SHARD_LAYOUT,
    community_ids,
    flow_ids,
    icmp_answer,
    icmp_ports,
    icmp_two_way,
    packet_shard,
    shard_hash,
)
from transforms.records import DCCP, ICMP, ICMPV6, PACKET, SCTP, TCP, UDP, UDP_LITE

CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS") or Path(__file__).parents[3] / "shared" / "data")
DOCUMENT = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()


def halves(text):
    """An address as PACKET and KEY hold it: version, high and low 64 bits."""
    address = ipaddress.ip_address(text)
    number = int(address) if address.version == 6 else 0xFFFF << 32 | int(address)
    return address.version, number >> 64, number & (1 << 64) - 1


def endpoints(dtype, protocol, src, src_port, dst, dst_port, **others):
    """One row of KEY or PACKET."""
    row = np.zeros(1, dtype)
    row["ip_version"], row["src_hi"], row["src_lo"] = halves(src)
    _, row["dst_hi"], row["dst_lo"] = halves(dst)
    row["protocol"], row["src_port"], row["dst_port"], row["vni"] = protocol, src_port, dst_port, -1
    for name, value in others.items():
        row[name] = value
    return row


def turned(row):
    """The same row seen from the other side."""
    other = row.copy()
    for name in ("hi", "lo", "port"):
        other[f"src_{name}"], other[f"dst_{name}"] = row[f"dst_{name}"], row[f"src_{name}"]
    return other


def octets(row, side):
    return struct.pack(">QQ", int(row[f"{side}_hi"][0]), int(row[f"{side}_lo"][0]))


def id_of(key, sensor):
    """The flow id by its documented layout and the reference implementation of XXH3."""
    layout = np.zeros(1, ID_LAYOUT)
    layout["version"] = b"id@1"
    layout["sensor"] = np.frombuffer(xxhash.xxh3_128_digest(sensor.encode()), np.uint8)
    for side in ("src", "dst"):
        layout[f"{side}_ip"] = np.frombuffer(octets(key, side), np.uint8)
    for name in ("ip_version", "protocol", "vlan_id", "src_port", "dst_port", "vni", "flow_first_ns", "ordinal"):
        layout[name] = key[name]
    layout["flow_part"] = key["flow_part"]
    return xxhash.xxh3_128_digest(layout.tobytes())


def shard_of(packet):
    """The shard hash by its documented layout."""
    ports = [0, 0] if packet["protocol"][0] in (ICMP, ICMPV6) else [int(packet[f"{s}_port"][0]) for s in ("src", "dst")]
    low, high = sorted(zip((octets(packet, "src"), octets(packet, "dst")), ports, strict=True))
    layout = np.zeros(1, SHARD_LAYOUT)
    layout["low_ip"], layout["high_ip"] = np.frombuffer(low[0], np.uint8), np.frombuffer(high[0], np.uint8)
    layout["low_port"], layout["high_port"], layout["protocol"] = low[1], high[1], packet["protocol"]
    return xxhash.xxh3_64_intdigest(layout.tobytes())


def community_id_of(key, seed):
    """Community ID in a few lines of Python."""
    protocol, ports = int(key["protocol"][0]), [int(key[f"{side}_port"][0]) for side in ("src", "dst")]
    skip = 12 if key["ip_version"][0] == 4 else 0
    ends = [(octets(key, "src")[skip:], ports[0]), (octets(key, "dst")[skip:], ports[1])]
    pairs = {ICMP: ICMP_PAIRS, ICMPV6: ICMPV6_PAIRS}.get(protocol)
    if pairs is None or ports == [0, 0] or any(ports[0] & 255 in pair for pair in pairs):
        ends.sort()
    hashed = struct.pack(">H", seed) + ends[0][0] + ends[1][0] + bytes([protocol, 0])
    if protocol in (TCP, UDP, SCTP, ICMP, ICMPV6):
        hashed += struct.pack(">HH", ends[0][1], ends[1][1])
    return "1:" + b64encode(hashlib.sha1(hashed).digest()).decode()


@st.composite
def rows(draw, dtype):
    """Any key or packet; few distinct addresses, so that equal ones happen."""
    version = draw(st.sampled_from([4, 6]))
    address = st.integers(0, 2 ** (32 if version == 4 else 128) - 1) | st.integers(0, 3)
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    port = st.integers(0, 65535) | st.integers(0, 20) | st.integers(128, 145)
    others = {}
    if dtype is KEY:
        others = {
            name: draw(st.integers(np.iinfo(KEY[name]).min, np.iinfo(KEY[name]).max))
            for name in ("flow_first_ns", "ordinal", "flow_part", "vni", "vlan_id")
        }
    protocol = draw(st.sampled_from([ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDP_LITE, 47, 0, 255]))
    src, dst = kind(draw(address)), kind(draw(address))
    return endpoints(dtype, protocol, src, draw(port), dst, draw(port), **others)


@pytest.mark.parametrize(
    ("row", "sensor", "expected"),
    [
        (endpoints(KEY, TCP, "192.0.2.1", 49152, "198.51.100.2", 443, flow_first_ns=1_767_600_000_000_000_000),
         "local", "1af439b2e4e2a39a8d23c13c17696c8c"),
        (endpoints(KEY, ICMPV6, "2001:db8::1", 128, "2001:db8::2", 129, vlan_id=7, vni=9, ordinal=1, flow_part=2),
         "tap-ü", "a4c195ca626d6e662d36cfb4cf806264"),
        (endpoints(KEY, 0, "0.0.0.0", 0, "0.0.0.0", 0, flow_first_ns=-1), "", "0e1ed1df40461d9ffa49a206962caaa9"),
    ],
    ids=["tcp", "every-field", "merged-sensors"],
)  # fmt: skip
def test_flow_id_vectors(row, sensor, expected):
    """Ids of version id@1 never change, and are those of the documentation."""
    assert expected in DOCUMENT
    assert flow_ids(row, sensor).tobytes().hex() == expected


@settings(max_examples=60, deadline=None)
@given(rows(KEY), st.text(max_size=300))
def test_flow_id_is_xxh3_of_the_documented_layout(key, sensor):
    assert flow_ids(key, sensor).tobytes() == id_of(key, sensor)


@pytest.mark.parametrize("name", KEY.names)
def test_every_field_of_the_key_changes_the_flow_id(name):
    key = endpoints(KEY, TCP, "192.0.2.1", 49152, "198.51.100.2", 443)
    other = key.copy()
    other[name] += 1
    assert flow_ids(key, "a").tobytes() != flow_ids(other, "a").tobytes()
    assert flow_ids(key, "a").tobytes() != flow_ids(key, "b").tobytes()


def test_ids_of_no_flows():
    none = np.zeros(0, KEY)
    assert flow_ids(none, "local").shape == (0, 16)
    assert community_ids(none).to_pylist() == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (endpoints(PACKET, TCP, "192.0.2.1", 49152, "198.51.100.2", 443), "bb50c08f8992571c"),
        (endpoints(PACKET, UDP, "2001:db8::1", 53, "2001:db8::2", 5353), "7969745be21628d4"),
        (endpoints(PACKET, ICMP, "192.0.2.1", 8, "198.51.100.2", 0), "557592fe9cb9a6ac"),
    ],
    ids=["tcp", "ipv6", "icmp"],
)
def test_shard_vectors(row, expected):
    """Shards of version shard@1 never change, in either direction, and are those of the documentation."""
    assert expected in DOCUMENT
    assert f"{shard_hash(row)[0]:016x}" == expected
    assert f"{shard_hash(turned(row))[0]:016x}" == expected


@settings(max_examples=60, deadline=None)
@given(rows(PACKET))
def test_shard_is_xxh3_of_the_documented_layout(packet):
    assert int(shard_hash(packet)[0]) == shard_of(packet) == int(packet_shard(packet[0]))
    assert shard_hash(turned(packet))[0] == shard_hash(packet)[0]


@pytest.mark.parametrize("changed", ["vlan_id", "vni", "ip_version", "time_ns"])
def test_what_options_may_drop_from_the_key_is_no_part_of_the_shard(changed):
    packet = endpoints(PACKET, TCP, "192.0.2.1", 49152, "198.51.100.2", 443)
    other = packet.copy()
    other[changed] += 1
    assert shard_hash(packet)[0] == shard_hash(other)[0]


@pytest.mark.parametrize("protocol", [ICMP, ICMPV6])
def test_the_ports_of_icmp_are_no_part_of_the_shard(protocol):
    """`--icmp_key=none` makes them 0."""
    packet = endpoints(PACKET, protocol, "192.0.2.1", 8, "198.51.100.2", 0)
    assert shard_hash(packet)[0] == shard_hash(endpoints(PACKET, protocol, "192.0.2.1", 0, "198.51.100.2", 0))[0]


@pytest.mark.parametrize(
    ("key", "seed", "expected"),
    [
        # The reference implementation's own examples (corelight/community-id-spec, baseline).
        (endpoints(KEY, TCP, "128.232.110.120", 34855, "66.35.250.204", 80), 0, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (endpoints(KEY, TCP, "66.35.250.204", 80, "128.232.110.120", 34855), 0, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (endpoints(KEY, TCP, "128.232.110.120", 34855, "66.35.250.204", 80), 1, "1:3V71V58M3Ksw/yuFALMcW0LAHvc="),
        (endpoints(KEY, UDP, "192.168.1.52", 54585, "8.8.8.8", 53), 0, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        (endpoints(KEY, ICMP, "192.168.0.89", 8, "192.168.0.1", 0), 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
        (endpoints(KEY, ICMPV6, "fe80::200:86ff:fe05:80da", 135, "fe80::260:97ff:fe07:69ea", 136), 0,
         "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
        (endpoints(KEY, SCTP, "192.168.170.8", 7, "192.168.170.56", 7), 0, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
        (endpoints(KEY, 46, "10.1.12.1", 0, "10.1.12.2", 0), 0, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="),
    ],
    ids=["tcp", "tcp-reply", "tcp-seed-1", "udp", "icmp", "icmpv6", "sctp", "no-ports"],
)  # fmt: skip
def test_community_id_vectors(key, seed, expected):
    assert community_ids(key, seed).to_pylist() == [expected]


@settings(max_examples=100, deadline=None)
@given(st.lists(rows(KEY), min_size=1, max_size=8), st.integers(0, 65535))
def test_community_id_is_the_hash_that_its_specification_says(keys, seed):
    assert community_ids(np.concatenate(keys), seed).to_pylist() == [community_id_of(key, seed) for key in keys]


@pytest.mark.parametrize("protocol", [DCCP, UDP_LITE])
def test_community_id_of_dccp_and_udp_lite_has_no_ports(protocol):
    key = endpoints(KEY, protocol, "192.0.2.1", 5, "192.0.2.2", 6)
    assert community_ids(key) == community_ids(endpoints(KEY, protocol, "192.0.2.1", 7, "192.0.2.2", 8))


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not here")
def test_community_ids_of_the_corpus():
    """Every tuple of the reference implementation's baseline, under one of the seeds it was made with."""
    tuples = json.loads((CORPUS / "expected" / "community-id" / "baseline_deflt.json").read_text())
    assert tuples
    for one in tuples:
        key = endpoints(KEY, one["proto"], one["saddr"], one["sport"] or 0, one["daddr"], one["dport"] or 0)
        assert one["communityid"] in (community_ids(key, 0)[0].as_py(), community_ids(key, 1)[0].as_py())


@pytest.mark.parametrize(
    ("protocol", "icmp_type", "code", "expected"),
    [(ICMP, 8, 0, (8, 0)), (ICMP, 0, 0, (0, 8)), (ICMP, 3, 1, (3, 1)), (ICMP, 10, 0, (10, 9)),
     (ICMP, 255, 255, (255, 255)), (ICMPV6, 128, 0, (128, 129)), (ICMPV6, 129, 0, (129, 128)), (ICMPV6, 1, 4, (1, 4)),
     (ICMPV6, 135, 0, (135, 136)), (ICMPV6, 8, 3, (8, 3))],
)  # fmt: skip
def test_icmp_ports(protocol, icmp_type, code, expected):
    assert icmp_ports(protocol, icmp_type, code) == expected


@pytest.mark.parametrize(("protocol", "pairs"), [(ICMP, ICMP_PAIRS), (ICMPV6, ICMPV6_PAIRS)])
def test_only_paired_types_are_two_way(protocol, pairs):
    """A request and its answer have mirrored ports; all other types keep their direction."""
    paired = {kind for pair in pairs for kind in pair}
    for kind in range(256):
        src_port, dst_port = icmp_ports(protocol, kind, 200)
        assert icmp_two_way(protocol, src_port, dst_port) == (kind in paired)
    for request, answer in pairs:
        assert icmp_ports(protocol, request, 0) == icmp_ports(protocol, answer, 0)[::-1]
    assert icmp_two_way(protocol, 0, 0), "no ports, no direction"


def test_answers_by_nature():
    """ICMP 0, 14, 16, 18 and ICMPv6 129, and nothing else: a router may advertise without being asked."""
    answers = {p: [t for t in range(256) if icmp_answer(p, *icmp_ports(p, t, 0))] for p in (ICMP, ICMPV6, TCP)}
    assert answers == {ICMP: [0, 14, 16, 18], ICMPV6: [129], TCP: []}
    assert not icmp_answer(ICMP, 0, 0), "ports that hold no type"
