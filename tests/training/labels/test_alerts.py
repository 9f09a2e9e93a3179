import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from label_testing import S, batch, flow

from training.labels.alerts import read_suricata, read_zeek
from training.labels.attacks import FlowColumns, Teller
from transforms.records import InputError

EVE: dict[str, Any] = {
    "timestamp": "2026-01-05T09:00:00.500000+0100", "flow_id": 586497171462735, "pcap_cnt": 53381,
    "event_type": "alert", "src_ip": "10.0.0.1", "src_port": 40_000, "dest_ip": "192.168.0.9", "dest_port": 80,
    "proto": "TCP",
    "alert": {"action": "allowed", "gid": 1, "signature_id": 2018358, "rev": 10, "severity": 2,
              "signature": "ET HUNTING POST to Dotted Quad", "category": "Potentially Bad Traffic"},
    "app_proto": "http",
}  # fmt: skip

NOTICES = """\
#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tnotice
#open\t2026-01-05-08-00-00
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tfuid\tproto\tnote\tmsg\tsub\tsrc\tdst\tp\tn\tsuppress_for
#types\ttime\tstring\taddr\tport\taddr\tport\tstring\tenum\tenum\tstring\tstring\taddr\taddr\tport\tcount\tinterval
1767600000.500000\tCDrD94\t10.0.0.1\t40000\t192.168.0.9\t80\t-\ttcp\tHTTP::SQL_Injection\tx\t-\t10.0.0.1\t192.168.0.9\t80\t-\t3600.000000
1767600100.000000\t-\t-\t-\t-\t-\t-\t-\tScan::Port_Scan\tscanned\tremote\t10.0.0.7\t192.168.0.8\t-\t-\t3600.000000
#close\t2026-01-05-09-00-00
"""

THERE = Path("there/log")
WINDOW_NS = 300 * S


def numbered(lines: Iterable[object]) -> list[tuple[int, bytes]]:
    return [
        (number, (one if isinstance(one, str) else json.dumps(one)).encode()) for number, one in enumerate(lines, 1)
    ]


def suricata(*events: object, slack_ns: int = 0) -> list[Teller]:
    return list(read_suricata(THERE, numbered(events), slack_ns))


def zeek(text: str, slack_ns: int = 0) -> list[Teller]:
    return list(read_zeek(THERE, numbered(text.splitlines()), slack_ns, WINDOW_NS))


def said(tellers: list[Teller], *flows: dict[str, Any]) -> list[tuple[int, str]]:
    """Flow and name of each claim."""
    columns = FlowColumns.of(batch(*flows))
    return [
        (int(row), teller.attacks[attack].name)
        for teller in tellers
        for claims in teller.claims(columns)
        for row, attack in zip(claims.rows, claims.attacks, strict=True)
    ]


def eve(**changes: Any) -> dict[str, Any]:
    return {**EVE, **changes, "alert": {**EVE["alert"], **changes.get("alert", {})}}


def test_an_alert_is_of_its_flow():
    (alerts,) = made = suricata(
        {"event_type": "flow", "alert": "no"}, EVE, {"event_type": "stats"}, eve(src_ip="10.0.0.3")
    )
    assert alerts.attacks == [("ET HUNTING POST to Dotted Quad", "Potentially Bad Traffic", "log", "nothing", False, 2)]
    assert said(made, flow(), flow(start_s=1), flow(src_ip="10.0.0.2")) == [(0, "ET HUNTING POST to Dotted Quad")]
    assert alerts.unmatched_events().tolist() == [1]


def test_an_alert_about_the_answer_is_of_the_flow():
    """Suricata's source is that of the packet."""
    answer = eve(src_ip="192.168.0.9", src_port=80, dest_ip="10.0.0.1", dest_port=40_000)
    assert len(said(suricata(answer), flow())) == 1


def test_severe_alerts_come_first():
    """Severity 1 is the highest; equal ones by name; whatever the order in the log."""
    (alerts,) = suricata(
        eve(alert={"signature": "c", "severity": 3}), eve(alert={"signature": "b", "severity": 1}),
        eve(alert={"signature": "a", "severity": 1}), eve(alert={"signature": "d", "severity": None}),
    )  # fmt: skip
    assert [attack.name for attack in alerts.attacks] == ["a", "b", "c", "d"]
    assert said([alerts], flow()) == [(0, name) for name in "abcd"]


def test_alerts_without_addresses_are_found_by_community_id():
    told = eve(
        src_ip=None, dest_ip=None, community_id="1:LQU9qZlK+B5F3KDmev6m5PMibrg=", timestamp="2026-01-05T08:00:00Z"
    )
    made = suricata(told, EVE)
    assert [teller.columns for teller in made] == [(), ("community_id",)]
    assert said(made, flow(src_port=1, community_id="1:LQU9qZlK+B5F3KDmev6m5PMibrg="), flow()) == [
        (1, "ET HUNTING POST to Dotted Quad"),
        (0, "ET HUNTING POST to Dotted Quad"),
    ]


def test_alerts_about_what_is_no_flow_are_events_without_one():
    """Suricata's own rules tell of frames that are no IP, as of unknown ethertypes: the log is read all the same."""
    arp = {name: value for name, value in EVE.items() if "ip" not in name and "port" not in name and name != "proto"}
    (alerts,) = made = suricata(arp, EVE, eve(proto="TCQ"))
    assert said(made, flow(), flow(protocol=2), flow(src_ip=None, dst_ip=None)) == [
        (0, "ET HUNTING POST to Dotted Quad")
    ]
    assert alerts.columns == ()
    assert alerts.unmatched_events().tolist() == [2]


def test_an_alert_within_the_first_microsecond():
    """Its time has no nanoseconds: it looks as if it were before the flow."""
    assert len(said(suricata(eve(timestamp="2026-01-05T08:00:00.000000Z")), flow(start_s=999e-9))) == 1


@pytest.mark.parametrize(
    ("protocol", "number"),
    [("ICMP", 1), ("IPv6-ICMP", 58), ("UDP", 17), ("6", 6), ("SCTP", 132), ("IP-in-IP", 4), ("089", 89)],
)
def test_protocols_by_name(protocol, number):
    told = {**EVE, "proto": protocol, "icmp_type": 8}
    told = {name: value for name, value in told.items() if number not in (1, 58) or "port" not in name}
    assert len(said(suricata(told), flow(protocol=number))) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"event_type": "flow"}], "there/log: has no alerts"),
        (["{}", '{"alert"'], "there/log:2: is no JSON: "),
        (['["alert"]'], "there/log:1: is no JSON object"),
        ([eve(timestamp="noon")], "there/log:1: noon is no time"),
        ([eve(timestamp=None)], "there/log:1: None is no time"),
        ([eve(src_port=70000)], "there/log:1: 70000 is no port"),
        ([eve(proto="256")], "there/log:1: 256 is no protocol such as TCP"),
        ([eve(src_ip="nowhere")], "there/log: nowhere to 192.168.0.9: one of them is no address"),
    ],
)
def test_mistakes_in_an_eve_log(lines, message):
    with pytest.raises(InputError) as caught:
        suricata(*lines)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_notices_about_connections_and_hosts():
    connections, hosts = made = zeek(NOTICES)
    assert connections.attacks == [("HTTP::SQL_Injection", "HTTP", "log", "nothing", False, 1)]
    assert hosts.attacks == [("Scan::Port_Scan", "Scan", "log", "nothing", False, 1)]
    probe = {"src_ip": "10.0.0.7", "dst_ip": "192.168.0.8"}
    flows = [flow(), flow(**probe, start_s=-199), flow(**probe, start_s=-201), flow(**probe, start_s=400),
             flow(src_ip="192.168.0.8", dst_ip="10.0.0.7"), flow(src_ip="10.0.0.7", start_s=1)]  # fmt: skip
    assert said(made, *flows) == [(0, "HTTP::SQL_Injection"), (1, "Scan::Port_Scan"), (3, "Scan::Port_Scan")]


def test_notices_as_json_are_the_same():
    rows = [line.split("\t") for line in NOTICES.splitlines() if not line.startswith("#")]
    names = NOTICES.splitlines()[6].split("\t")[1:]
    objects = [{name: value for name, value in zip(names, row, strict=True) if value != "-"} for row in rows]
    for one in objects:
        one["ts"] = float(one["ts"])
    text = "\n".join(map(json.dumps, objects))
    for plain, as_json in zip(zeek(NOTICES), zeek(text), strict=True):
        assert plain.attacks == as_json.attacks
    assert said(zeek(text), flow()) == [(0, "HTTP::SQL_Injection")]


def test_notices_of_one_kind_are_one_attack():
    """A port narrows; an unmatched notice is told."""
    lines = NOTICES.splitlines()
    scan = lines[9].replace("\t192.168.0.8\t-\t", "\t-\t22\t")
    (hosts,) = zeek("\n".join([*lines[:8], scan, lines[9], lines[9].replace("10.0.0.7", "10.9.9.9")]))
    assert [attack.events for attack in hosts.attacks] == [3]
    assert said([hosts], flow(src_ip="10.0.0.7", dst_port=22), flow(src_ip="10.0.0.7")) == [(0, "Scan::Port_Scan")]
    assert hosts.unmatched_events().tolist() == [2]


def test_other_separators_and_unset_fields():
    text = NOTICES.replace("\\x09", "\\x7c").replace("#unset_field\t-", "#unset_field|?").replace("\t-", "\t?")
    text = text.replace("\t", "|")
    assert said(zeek(text), flow()) == [(0, "HTTP::SQL_Injection")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#separator \\", "there/log:1: '\\\\' is no separator"),
        ("#separator ", "there/log:1: '' is no separator"),
        ("#fields\tts\tnote", "there/log: has no notices"),
        ("#fields\tts\tuid", "there/log:1: is no notice.log: its fields have no note"),
        ("#fields\tts\tnote\n1\tx\ty", "there/log:2: 3 values for 2 #fields"),
        ("#fields\tts\tnote\n1\t-", "there/log:2: the notice has no note"),
        ("#fields\tts\tnote\nnoon\tx", "there/log:2: noon is no time"),
        ("#fields\tts\tnote\tsrc\n1\tx\there", "there/log:2: here is no address"),
    ],
)
def test_mistakes_in_a_notice_log(text, message):
    with pytest.raises(InputError) as caught:
        zeek(text)
    assert str(caught.value).startswith(message)
