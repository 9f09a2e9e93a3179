"""Nothing is lost: packets read = packets in flows + rejects by reason, capture by capture.

That as many packets are read as Wireshark finds is tests/sources/test_captures_corpus.py's.
"""

import json

import pytest
from corpus_captures import FEATURES, Capture, assemble, chosen_captures, one_by_one
from corpus_pipelines import paths, run_flows

from sources.captures import ReadReport, ReadSettings
from sources.headers import HeaderSettings
from transforms.rules import Rules
from transforms.settings import FlowSettings

pytestmark = pytest.mark.corpus

SETTINGS = {
    "as-it-comes": (Rules(), HeaderSettings()),
    "to-compare": (Rules(end_rules=("idle", "active"), icmp_key="none"), HeaderSettings(decapsulate=())),
    "everything-on": (
        Rules(interim_interval_s=60, drop_duplicates_s=1),
        HeaderSettings(payload_octets=64, headers_hash=True),
    ),
    "few-flows": (Rules(max_open_flows=3), HeaderSettings()),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_packet_is_in_a_flow_or_rejected(name):
    """Whatever the settings; an interim report counts no packet a second time."""
    rules, headers = SETTINGS[name]
    settings = FlowSettings(rules, FEATURES)

    def balanced(capture: Capture) -> str | None:
        report, counts, flows = assemble(capture.path, settings, ReadSettings(headers), ["record_kind"])
        in_flows = sum(flow["fwd_packets"] + flow["rev_packets"] for flow in flows if flow["record_kind"] == "final")
        rejected = sum(report.rejects.values()) + counts["late"] + counts["duplicate"]
        if report.packets_read == in_flows + rejected and counts["packets_in_flows"] == in_flows:
            return None
        return f"{report.packets_read} read, {in_flows} in flows, {rejected} rejected; counted {dict(counts)}"

    wrong = one_by_one(balanced, chosen_captures())
    assert not wrong, "\n".join(wrong)


def test_many_sensors_in_one_pipeline(tmp_path):
    """Each capture is a sensor of its own: its packets are in its flows, and the summary adds all of them up."""
    run = run_flows(paths(chosen_captures()), tmp_path / "run", "--sensor_from=file")
    total = ReadReport()
    for capture in chosen_captures():
        report = assemble(capture.path, FlowSettings(feature_sets=FEATURES)).report
        total.packets_read += report.packets_read
        total.rejects.update(report.rejects)
        sent = [json.loads(line) for line in run.flows.get(capture.name, [])]
        in_flows = sum(flow["fwd_packets"] + flow["rev_packets"] for flow in sent)
        assert in_flows == report.packets_read - sum(report.rejects.values()), capture.name
    assert run.summary["packets_read"] == total.packets_read
    assert run.summary["rejects"] == dict(total.rejects)
    assert run.summary["packets_in_flows"] == total.packets_read - sum(total.rejects.values())
    print(
        f"{total.packets_read} packets of {len(chosen_captures())} captures, {run.summary['packets_in_flows']} in "
        f"{run.summary['flows']} flows, rejects {run.summary['rejects']}"
    )
