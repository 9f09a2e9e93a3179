"""Flows, packets and octets against NFStream 6.6.0, on every capture that it read, and nDPI where both agree."""

import csv
import gzip
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from corpus.differences import NFSTREAM, Stated
from corpus.peer_views import seen_through
from corpus_captures import (
    CORPUS,
    FEATURES,
    Capture,
    all_captures,
    assemble,
    biflow,
    chosen_captures,
    fold,
    one_by_one,
    our_biflow,
)

from sources.captures import ReadSettings
from sources.headers import HeaderSettings
from transforms.rules import Rules
from transforms.settings import FlowSettings

pytestmark = pytest.mark.corpus

SETTINGS = FlowSettings(Rules(end_rules=("idle", "active"), icmp_key="none"), FEATURES)
HEADERS = HeaderSettings(decapsulate=("ip",))
"""NFStream opens no tunnels unless asked to, but always IP in IP."""

NDPI_FLOW = re.compile(r"\[(\d+) pkts/(\d+) bytes (?:->|<->|<-) (\d+) pkts/(\d+) bytes\]")


@cache
def nfstream() -> dict[str, Counter[Any]]:
    """NFStream's flows by capture."""
    flows: dict[str, Counter[Any]] = defaultdict(Counter)
    path = CORPUS / "expected" / "peer-runs" / "nfstream-6.6.0_flows.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            flow = biflow(
                (row["src_ip"], int(row["src_port"])),
                (row["dst_ip"], int(row["dst_port"])),
                (int(row["src2dst_packets"]), int(row["src2dst_bytes"])),
                (int(row["dst2src_packets"]), int(row["dst2src_bytes"])),
                int(row["protocol"]),
                int(row["vlan_id"]),
            )
            flows[row["capture"].removeprefix("captures/")][flow] += 1
    return flows


def ours(capture: Capture) -> Counter[Any]:
    """Our flows with the settings for comparing."""
    flows = assemble(capture.path, SETTINGS, ReadSettings(HEADERS)).flows
    return Counter(our_biflow(flow, "frame") for flow in flows)


def sizes(flows: Counter[Any]) -> Counter[tuple[int, int]]:
    """Packets and octets of each flow."""
    found: Counter[tuple[int, int]] = Counter()
    for ((_, (packets, octets)), (_, (more_packets, more_octets)), *_), n in flows.items():
        found[packets + more_packets, octets + more_octets] += n
    return found


def compared(capture: Capture, scratch: Path) -> str | None:
    """What is neither equal nor in the table, or is in the table without need."""
    mine, theirs = ours(capture), nfstream()[capture.name]
    difference = NFSTREAM.get(capture.name)
    if mine == theirs:
        return "is equal, but stands in the table of differences" if difference else None
    if difference is None:
        return f"differs: we alone {list(mine - theirs)[:3]}, NFStream alone {list(theirs - mine)[:3]}"
    if isinstance(difference, Stated):
        alone = (sum((mine - theirs).values()), sum((theirs - mine).values()))
        stated = (difference.ours_alone, difference.theirs_alone)
        return None if alone == stated else f"{alone} flows on one side alone, {stated} are stated"
    _, flows = fold(seen_through(difference, capture.path, HEADERS, scratch), SETTINGS)
    replayed = Counter(our_biflow(flow, "frame") for flow in flows)
    if replayed == theirs:
        return None
    return f"differs still: we alone {list(replayed - theirs)[:3]}, NFStream alone {list(theirs - replayed)[:3]}"


def test_flows_are_those_of_nfstream_or_the_difference_is_explained(tmp_path):
    """Keys, flow counts, and packets and frame octets of each side of each flow, with the settings for comparing."""
    captures = [capture for capture in chosen_captures() if capture.name in nfstream()]
    wrong = one_by_one(lambda capture: compared(capture, tmp_path / "capture"), captures)
    explained = sum(capture.name in NFSTREAM for capture in captures)
    print(f"NFStream: {len(captures)} captures, {len(captures) - explained - len(wrong)} equal, {explained} explained")
    assert not wrong, "\n".join(wrong)


def test_flows_have_the_sizes_on_which_nfstream_and_ndpi_agree():
    """In 99 of 100 captures of which both say the same, we do: as many flows, of as many packets and octets."""
    agreed, different = 0, []
    for capture in chosen_captures():
        theirs = sizes(nfstream().get(capture.name, Counter()))
        for path in capture.expected_by("ndpi"):
            said = NDPI_FLOW.findall(path.read_text(encoding="utf-8", errors="replace"))
            if theirs and Counter((int(a) + int(c), int(b) + int(d)) for a, b, c, d in said) == theirs:
                agreed += 1
                if sizes(ours(capture)) != theirs:
                    different.append(capture.name)
    print(f"NFStream and nDPI agree on {agreed} captures; we say the same of {agreed - len(different)}")
    assert agreed
    assert len(different) <= max(1, agreed // 100), different
    assert set(different) <= set(NFSTREAM)


def test_the_table_of_differences_is_of_captures_that_exist():
    """Nothing is explained that cannot differ."""
    assert set(NFSTREAM) <= {capture.name for capture in all_captures()} & set(nfstream())
