"""Frame octets, packets and Community IDs of each end of each 5-tuple, against the sessions of Arkime's own tests."""

import base64
import hashlib
import ipaddress
import json
from typing import Any

import pytest
from corpus.differences import ARKIME, ARKIME_COMMUNITY_IDS
from corpus.peer_totals import Totals, alone, our_totals, totals
from corpus_captures import FEATURES, Capture, all_captures, assemble, chosen_captures, one_by_one

from transforms.settings import FlowSettings

pytestmark = pytest.mark.corpus

SETTINGS = FlowSettings(feature_sets=FEATURES)


def sessions(capture: Capture) -> list[dict[str, Any]]:
    """Arkime's sessions that have addresses."""
    found = []
    for path in capture.expected_by("arkime"):
        bodies = (session["body"] for session in json.loads(path.read_text(encoding="utf-8"))["sessions3"])
        found += [body for body in bodies if "ip" in body["source"]]
    return found


def arkime(capture: Capture) -> Totals:
    """What the sessions say in all."""

    def end(side: dict[str, Any]) -> tuple[str, int]:
        return side["ip"], side.get("port", 0)

    def sent(side: dict[str, Any]) -> tuple[int, int]:
        return side["packets"], side["bytes"]

    return totals(
        (
            session["ipProtocol"],
            end(session["source"]),
            end(session["destination"]),
            sent(session["source"]),
            sent(session["destination"]),
        )
        for session in sessions(capture)
    )


def of_arkime() -> list[Capture]:
    """The chosen captures that Arkime says something about."""
    return [capture for capture in chosen_captures() if capture.expected_by("arkime")]


def test_octets_are_those_of_arkime_or_the_difference_is_explained():
    """Packets and frame octets of each end, inner flows of tunnels, whatever ends them."""

    def compared(capture: Capture) -> str | None:
        ours = our_totals(assemble(capture.path, SETTINGS).flows, "frame")
        differing = alone(ours, arkime(capture))
        stated = ARKIME[capture.name][1:] if capture.name in ARKIME else (0, 0)
        return None if differing == stated else f"{differing} differ, {stated} are explained"

    wrong = one_by_one(compared, of_arkime())
    explained = sum(capture.name in ARKIME for capture in of_arkime())
    equal = len(of_arkime()) - explained - len(wrong)
    print(f"Arkime: {len(of_arkime())} captures, {equal} equal, {explained} explained")
    assert not wrong, "\n".join(wrong)
    assert equal


def test_community_ids_are_those_of_arkime():
    """Every Community ID of Arkime is one of ours, but for two kinds of flows that it hashes in its own way."""

    def compared(capture: Capture) -> str | None:
        flows = assemble(capture.path, SETTINGS, columns=["community_id"]).flows
        ours = {flow["community_id"] for flow in flows}
        for session in sessions(capture):
            theirs = session["network"].get("community_id")
            if theirs in ours or theirs is None:
                continue
            if capture.name not in ARKIME_COMMUNITY_IDS:
                return f"{theirs} is not among ours"
            if theirs not in {ordered_with_ports(flow) for flow in flows}:
                return f"{theirs} is none of our flows, hashed as Arkime does"
        return None

    wrong = one_by_one(compared, of_arkime())
    assert not wrong, "\n".join(wrong)


def ordered_with_ports(flow: dict[str, Any]) -> str:
    """A Community ID that always orders the ends and always hashes two ports; the specification does neither."""
    ends = sorted(
        (ipaddress.ip_address(flow[f"{side}_ip"]).packed, flow[f"{side}_port"].to_bytes(2, "big"))
        for side in ("src", "dst")
    )
    (low, low_port), (high, high_port) = ends
    message = b"\0\0" + low + high + bytes([flow["protocol"], 0]) + low_port + high_port
    return f"1:{base64.b64encode(hashlib.sha1(message).digest()).decode()}"


def test_the_tables_of_differences_are_of_captures_that_exist():
    """Nothing is explained that cannot differ."""
    known = {capture.name for capture in all_captures() if capture.expected_by("arkime")}
    assert set(ARKIME) <= known
    assert set(ARKIME_COMMUNITY_IDS) <= known
