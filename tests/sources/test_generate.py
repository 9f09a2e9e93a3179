import csv
import ipaddress
import struct
from collections import Counter, defaultdict

import dpkt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.captures import ReadReport, ReadSettings, read_packets
from sources.generate.capture import GenerateSettings, generate
from sources.generate.profiles import PROFILES
from sources.generate.sessions import NAMES
from sources.input_files import sensor_inputs
from transforms.features.families import FAMILIES
from transforms.flow_records import FlowColumns
from transforms.flow_table import FlowTable
from transforms.records import ACK, FIN, RST, SYN, TCP, UDP, InputError
from transforms.rules import Rules

START_NS = GenerateSettings("unused", 1).start_ns
ATTACKS = {name.name for name in NAMES if name.label != "benign"}


def captured(path):
    """(time in ns, frame) of every packet, as dpkt reads them."""
    with path.open("rb") as file:
        if path.suffix == ".pcapng":
            return [(round(time * 1e9), frame) for time, frame in dpkt.pcapng.Reader(file)]
        octets = file.read()
    at, packets = 24, []
    while at < len(octets):
        seconds, micros, length, wire = struct.unpack_from("<IIII", octets, at)
        assert length == wire
        packets.append((seconds * 10**9 + micros * 1000, octets[at + 16 : at + 16 + length]))
        at += 16 + length
    return packets


def made(folder, name="made.pcap", **settings_):
    """The packets of a generated capture."""
    generate(GenerateSettings(str(folder / name), **settings_))
    return captured(folder / name)


def labelled(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def flows_of(path):
    """What the flow table makes of a capture with default settings."""
    table, report, rows = FlowTable(Rules(), FAMILIES, FlowColumns(FAMILIES, [])), ReadReport(), []
    end_ns = 0
    for sensor_input in sensor_inputs([str(path)]):
        for batch in read_packets(sensor_input, ReadSettings(), report):
            table.add(batch)
            end_ns = batch.observed_ns
            rows += [row for flows in table.advance(end_ns) for row in flows.to_pylist()]
    rows += [row for flows in table.finish(end_ns) for row in flows.to_pylist()]
    return rows


def internet_checksum(octets):
    total = sum(struct.unpack(f">{(len(octets) + 1) // 2}H", octets + b"\0" * (len(octets) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("packets", [1, 7, 3000])
def test_exactly_so_many_packets_in_time_order(tmp_path, profile, packets):
    times = [time for time, _ in made(tmp_path, profile=profile, packets=packets)]
    assert len(times) == packets
    assert times == sorted(times)
    assert times[0] >= START_NS


def test_the_same_seed_gives_the_same_octets(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(GenerateSettings(str(tmp_path / name), 2000, seed=seed, labels=str(tmp_path / f"{name}.csv")))
    octets = {name: (tmp_path / name).read_bytes() for name in ("a", "b", "c")}
    assert octets["a"] == octets["b"] != octets["c"]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes() != (tmp_path / "c.csv").read_bytes()


def test_pcapng_has_nanoseconds(tmp_path):
    """Both kinds of file are complete; only one rounds its times."""
    generate(GenerateSettings(str(tmp_path / "made.pcapng"), 500))
    octets = (tmp_path / "made.pcapng").read_bytes()
    assert len(captured(tmp_path / "made.pcapng")) == 500
    first = 28 + 32  # section and interface blocks
    kind, _, _, high, low = struct.unpack_from("<IIIII", octets, first)
    assert kind == 6
    assert START_NS <= high << 32 | low < START_NS + 60 * 10**9
    times = []
    while first < len(octets):
        _, length, _, high, low = struct.unpack_from("<IIIII", octets, first)
        times.append(high << 32 | low)
        first += length
    assert times == sorted(times)
    assert any(time % 1000 for time in times)


def test_lengths_and_checksums_are_right(tmp_path):
    """Of IPv4, TCP, UDP, ICMP and ICMPv6, over every application's payload, odd and even."""
    seen = Counter()
    for _, frame in made(tmp_path, packets=30_000, profile="benign"):
        ethernet = dpkt.ethernet.Ethernet(frame)
        ip = frame[14:]
        if ethernet.type == dpkt.ethernet.ETH_TYPE_IP:
            assert internet_checksum(ip[:20]) == 0xFFFF
            assert int.from_bytes(ip[2:4], "big") == len(ip)
            protocol, addresses, transport = ip[9], ip[12:20], ip[20:]
        else:
            assert int.from_bytes(ip[4:6], "big") == len(ip) - 40
            protocol, addresses, transport = ip[6], ip[8:40], ip[40:]
        pseudo = b"" if protocol == 1 else addresses + struct.pack(">HH", len(transport), protocol)
        assert internet_checksum(pseudo + transport) == 0xFFFF
        if protocol == UDP:
            assert int.from_bytes(transport[4:6], "big") == len(transport)
        seen[protocol, len(transport) % 2] += 1
    assert {protocol for protocol, _ in seen} == {1, 6, 17, 58}
    assert {odd for _, odd in seen} == {0, 1}


def test_tcp_sequences_make_sense(tmp_path):
    """Nobody acknowledges what was not sent, handshakes have three parts, and some segments are sent twice."""
    connections, again = defaultdict(list), 0
    for _, frame in made(tmp_path, packets=20_000, profile="benign"):
        ip = dpkt.ethernet.Ethernet(frame).data
        if isinstance(ip.data, dpkt.tcp.TCP):
            tcp, ends = ip.data, ((ip.src, ip.data.sport), (ip.dst, ip.data.dport))
            connections[frozenset(ends)].append((ends[0], tcp))
    for segments in connections.values():
        initiator, expected = segments[0][0], {}
        for number, (sender, tcp) in enumerate(segments):
            other = next((end for end in expected if end != sender), None)
            if number < 3 and tcp.flags & SYN:
                assert tcp.flags == (SYN if sender == initiator else SYN | ACK)
            if tcp.flags & ACK:
                assert (expected[other] - tcp.ack) % 2**32 < 2**31, "an ACK of what was not sent"
            end = (tcp.seq + len(tcp.data) + (tcp.flags & (SYN | FIN) != 0)) % 2**32
            again += len(tcp.data) > 0 and sender in expected and (end - expected[sender]) % 2**32 >= 2**31
            if not tcp.flags & RST and (sender not in expected or (end - expected[sender]) % 2**32 < 2**31):
                expected[sender] = end
    endings = Counter(segments[-1][1].flags & (FIN | RST) for segments in connections.values())
    assert len(connections) > 50
    assert endings[0]
    assert endings[RST]
    assert again > 0


@pytest.mark.parametrize(
    ("profile", "packets", "flows"),
    [("office", 20_000, None), ("campus", 20_000, None), ("attacks", 8_000, None), ("syn-flood", 3_000, None),
     ("bulk", 10_000, 500)],
)  # fmt: skip
def test_labels_name_the_flows_that_the_flow_table_makes(tmp_path, profile, packets, flows):
    """Every flow has one label under its own id, and every label a flow: nothing is split, merged or forgotten."""
    capture, truth = tmp_path / "made.pcap", tmp_path / "labels.csv"
    generated = generate(GenerateSettings(str(capture), packets, 5, profile, flows, labels=str(truth)))
    labels = {row["flow_id"]: row for row in labelled(truth)}
    rows = {row["flow_id"].hex(): row for row in flows_of(capture)}
    assert labels.keys() == rows.keys()
    assert generated.flows == len(rows)
    assert sum(row["fwd_packets"] + row["rev_packets"] for row in rows.values()) == packets
    for flow_id, row in rows.items():
        label = labels[flow_id]
        for name in ("src_ip", "dst_ip", "src_port", "dst_port", "protocol", "flow_first_ns"):
            assert label[name] == str(row[name])


def test_the_office_has_every_attack(tmp_path):
    """A small capture too, beside every benign application but the rarest."""
    truth = tmp_path / "labels.csv"
    generate(GenerateSettings(str(tmp_path / "a.pcap"), 10_000, labels=str(truth)))
    rows = labelled(truth)
    assert {row["name"] for row in rows if row["class"] != "benign"} == ATTACKS
    assert {"web", "dns", "mail", "ntp", "icmp"} <= {row["name"] for row in rows}
    assert {(row["name"], row["class"]) for row in rows} <= set(NAMES)


def test_attacks_look_like_what_they_are(tmp_path):
    """One victim of a flood, many ports or many hosts of a scan, even gaps of a beacon, uploads, unasked answers."""
    capture, truth = tmp_path / "made.pcap", tmp_path / "labels.csv"
    generate(GenerateSettings(str(capture), 19_000, labels=str(truth)))
    rows = {row["flow_id"].hex(): row for row in flows_of(capture)}
    kinds = defaultdict(list)
    for label in labelled(truth):
        kinds[label["name"]].append(rows[label["flow_id"]])

    def distinct(name, column):
        return len({row[column] for row in kinds[name]})

    def total(name, column):
        return sum(row[column] for row in kinds[name])

    assert distinct("syn_flood", "src_ip") > 200
    assert total("syn_flood", "fwd_packets") == len(kinds["syn_flood"])
    assert distinct("syn_flood", "dst_ip") == distinct("vertical_scan", "dst_ip") == 1
    assert distinct("horizontal_scan", "dst_port") == distinct("horizontal_scan", "src_ip") == 1
    assert distinct("horizontal_scan", "dst_ip") == len(kinds["horizontal_scan"]) > 100
    assert distinct("vertical_scan", "dst_port") == len(kinds["vertical_scan"]) > 100
    assert {row["dst_port"] for row in kinds["ssh_brute_force"]} == {22}
    assert total("dns_amplification", "rev_packets") == 0
    assert {row["src_port"] for row in kinds["dns_amplification"]} == {53}
    assert total("exfiltration", "fwd_payload_octets") > 100 * total("exfiltration", "rev_payload_octets")
    gaps = np.diff(sorted(row["flow_first_ns"] for row in kinds["beaconing"]))
    assert gaps.std() < 0.2 * gaps.mean()
    lasted = [row["flow_end_ns"] - row["flow_start_ns"] for row in kinds["slow_http"]]
    assert np.median(lasted) > 5e9


def test_a_syn_flood_is_one_flow_a_packet(tmp_path):
    assert generate(GenerateSettings(str(tmp_path / "a.pcap"), 5_000, profile="syn-flood")).flows == 5_000


@pytest.mark.parametrize(("packets", "flows"), [(20_000, 1_000), (20_000, 4_000), (20_000, 18_000), (30_000, 100)])
def test_bulk_has_about_as_many_flows_as_asked_for(tmp_path, packets, flows):
    generated = generate(GenerateSettings(str(tmp_path / "a.pcap"), packets, profile="bulk", flows=flows))
    assert generated.flows == pytest.approx(flows, rel=0.25)
    assert 300 < generated.frame_octets / generated.packets < 700


def test_profiles_share_no_clients(tmp_path):
    """So that a model trained on one and tested on the other has not learnt addresses."""
    clients = {}
    for profile in ("office", "campus"):
        truth = tmp_path / f"{profile}.csv"
        generate(GenerateSettings(str(tmp_path / "a.pcap"), 5_000, profile=profile, labels=str(truth)))
        local = [row["src_ip"] for row in labelled(truth) if row["name"] in ("dns", "ntp")]
        clients[profile] = {ip for ip in local if ipaddress.ip_address(ip).is_private}
    assert clients["office"]
    assert clients["campus"]
    assert not clients["office"] & clients["campus"]


@pytest.mark.parametrize("profile", ["office", "campus"])
def test_sites_are_called_from_outside(tmp_path, profile):
    """By ordinary visitors too: that a flow comes from far away does not tell that it is an attack."""
    truth = tmp_path / "a.csv"
    generate(GenerateSettings(str(tmp_path / "a.pcap"), 20_000, profile=profile, labels=str(truth)))
    inside = [ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "2001:db8::/32")]
    outside = Counter(
        row["name"]
        for row in labelled(truth)
        if row["class"] == "benign" and not any(ipaddress.ip_address(row["src_ip"]) in net for net in inside)
    )
    assert outside["web"] > 5
    assert outside["mail"] > 0


def test_each_attack_comes_again(tmp_path):
    """So that a model which learns from what came first has seen what comes last; exfiltration in several uploads."""
    truth = tmp_path / "a.csv"
    generate(GenerateSettings(str(tmp_path / "a.pcap"), 40_000, profile="campus", labels=str(truth)))
    rows = [row for row in labelled(truth) if row["class"] != "benign"]
    for name in ATTACKS - {"syn_flood", "dns_amplification"}:
        ends = {(row["src_ip"], row["dst_ip"]) for row in rows if row["name"] == name}
        assert len(ends) >= 3, name
    assert sum(row["name"] == "exfiltration" for row in rows) >= 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"packets": 0}, "--packets=0"),
        ({"seed": -1}, "--seed=-1"),
        ({"profile": "home"}, "--profile=home: no such profile; there are office"),
        ({"flows": 5}, "--flows=5: only --profile=bulk"),
        ({"profile": "bulk", "flows": 101}, "--flows=101: must be from 1 to the number of packets, 100"),
        ({"start_ns": -1}, "--start"),
        ({"output": ""}, "--output"),
        ({"labels": "a.pcap"}, "--labels=a.pcap"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(InputError, match=message):
        GenerateSettings(**{"output": "a.pcap", "packets": 100} | wrong)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(PROFILES)), st.integers(1, 2000), st.integers(0, 2**64), st.booleans())
def test_any_size_and_seed(tmp_path_factory, profile, packets, seed, is_pcapng):
    """Any settings give exactly so many packets, and as many labels as flows."""
    folder = tmp_path_factory.mktemp("any")
    output, truth = folder / ("a.pcapng" if is_pcapng else "a.pcap"), folder / "a.csv"
    generated = generate(GenerateSettings(str(output), packets, seed, profile, labels=str(truth)))
    assert generated.packets == len(captured(output)) == packets
    assert generated.flows == len({row["flow_id"] for row in labelled(truth)})


@pytest.mark.parametrize("name", ["output", "labels"])
def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, name):
    """The other file does not appear either."""
    paths = {"output": str(tmp_path / "a.pcap"), "labels": str(tmp_path / "a.csv")}
    paths[name] = str(tmp_path / "missing" / "a")
    with pytest.raises(InputError, match=r"missing/a: cannot be written: No such file"):
        generate(GenerateSettings(packets=10, **paths))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_what_was_there(tmp_path):
    """The old capture stays until the new one is complete."""
    (tmp_path / "a.pcap").write_bytes(b"old")

    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(GenerateSettings(str(tmp_path / "a.pcap"), 1000), interrupt)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_every_transport_carries_the_opening_of_its_application(tmp_path):
    """Whoever looks into the payload finds the protocol that the port promises."""
    openings = defaultdict(set)
    for _, frame in made(tmp_path, packets=20_000):
        ip = dpkt.ethernet.Ethernet(frame).data
        if ip.p in (TCP, UDP) and len(ip.data.data) >= 4:
            openings[ip.p, ip.data.dport].add(bytes(ip.data.data[:4]))
    assert b"GET " in openings[TCP, 80]
    assert b"SSH-" in openings[TCP, 22]
    assert bytes.fromhex("16030302") not in openings[TCP, 80]
    assert any(opening.startswith(b"\x16\x03\x03") for opening in openings[TCP, 443])
    assert openings[UDP, 53] == {bytes.fromhex("1a2b0100")}
