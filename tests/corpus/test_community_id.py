"""Community IDs of real captures: those of the specification's own captures, Suricata's, and a plain reference."""

import base64
import hashlib
import ipaddress
import json
from typing import Any

import pytest
from corpus_captures import (
    CORPUS,
    FEATURES,
    Capture,
    address,
    all_captures,
    assemble,
    chosen_captures,
    one_by_one,
)

from transforms.rules import Rules
from transforms.settings import FlowSettings

pytestmark = pytest.mark.corpus

SETTINGS = FlowSettings(feature_sets=FEATURES)
WITH_PORTS = {1, 6, 17, 58, 132}
TWO_WAY = {
    1: {0, 8, 9, 10, 13, 14, 15, 16, 17, 18},
    58: {128, 129, 130, 131, 133, 134, 135, 136, 139, 140, 144, 145},
}
"""Types of ICMP messages that have an answer: the ends of the others are not put in order."""


def flows_of(capture: Capture, settings: FlowSettings = SETTINGS) -> list[dict[str, Any]]:
    """Our flows with their Community IDs."""
    return assemble(capture.path, settings, columns=["community_id"]).flows


def test_the_captures_of_the_specification():
    """Its baseline, tuple by tuple: either way round, each tuple that is in its captures has the id that it says."""
    path = CORPUS / "expected" / "community-id" / "baseline_deflt.json"
    baseline = {
        (
            address(entry["saddr"]),
            address(entry["daddr"]),
            entry["proto"],
            entry["sport"] or 0,
            entry["dport"] or 0,
        ): entry["communityid"]
        for entry in json.loads(path.read_text(encoding="utf-8"))
    }
    captures = [capture for capture in all_captures() if capture.expected_by("community-id")]
    found = set()
    for flow in (flow for capture in captures for flow in flows_of(capture)):
        ends = address(flow["src_ip"]), address(flow["dst_ip"])
        key = (*ends, flow["protocol"], flow["src_port"], flow["dst_port"])
        if key in baseline:
            assert flow["community_id"] == baseline[key], key
            found.add(baseline[key])
    assert found == set(baseline.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_every_flow_has_the_id_that_the_specification_describes(seed):
    """Community ID v1 in plain Python, on every flow of every capture."""
    settings = FlowSettings(Rules(community_id_seed=seed), FEATURES)

    def compared(capture: Capture) -> str | None:
        wrong = [flow for flow in flows_of(capture, settings) if flow["community_id"] != reference(flow, seed)]
        return str(wrong[0]) if wrong else None

    wrong = one_by_one(compared, chosen_captures())
    assert not wrong, "\n".join(wrong)


def reference(flow: dict[str, Any], seed: int) -> str:
    """Version 1 of the specification: SHA-1 over seed, ordered ends, protocol, zero, and ports where there are any."""
    protocol = flow["protocol"]
    source, destination = (
        (ipaddress.ip_address(flow[f"{side}_ip"]).packed, flow[f"{side}_port"].to_bytes(2, "big"))
        for side in ("src", "dst")
    )
    one_way = protocol in TWO_WAY and flow["src_port"] not in TWO_WAY[protocol]
    if not one_way and destination < source:
        source, destination = destination, source
    message = seed.to_bytes(2, "big") + source[0] + destination[0] + bytes([protocol, 0])
    if protocol in WITH_PORTS:
        message += source[1] + destination[1]
    return f"1:{base64.b64encode(hashlib.sha1(message).digest()).decode()}"


SURICATA_SEEDS = {"tests/community-id-ipv6": 7, "tests/community-id-sameip": 1}
"""The tests of Suricata that state ids, and the one seed of all 65,536 that gives them: their settings are not here."""


@pytest.mark.parametrize("name", SURICATA_SEEDS)
def test_the_ids_of_suricata(name):
    """Two connections over IPv6, and a host that talks to itself, each with a seed of its own."""
    checks = json.loads((CORPUS / "expected" / "suricata-verify" / "flow_checks.json").read_text(encoding="utf-8"))
    (test,) = (test for test in checks if test["test"] == name)
    (capture,) = (capture for capture in all_captures() if f"captures/{capture.name}" == test["capture"])
    stated = {check["match"]["community_id"] for check in test["checks"] if "community_id" in check["match"]}
    settings = FlowSettings(Rules(community_id_seed=SURICATA_SEEDS[name]), FEATURES)
    assert stated
    assert stated <= {flow["community_id"] for flow in flows_of(capture, settings)}
