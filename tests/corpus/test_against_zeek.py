"""IP octets and packets of each end of each 5-tuple, states and histories, against the conn.log of Zeek's own tests."""

import json
import re
from collections import Counter
from typing import Any

import pytest
from corpus.differences import ZEEK
from corpus.peer_totals import Totals, alone, our_totals, totals
from corpus_captures import CHECK_ALL, CORPUS, FEATURES, Capture, assemble, chosen_captures

from transforms.settings import FlowSettings

pytestmark = pytest.mark.corpus

SETTINGS = FlowSettings(feature_sets=FEATURES)
PROTOCOLS = {"tcp": 6, "udp": 17}
UNSET = "-"
WORDS = ("conn_state", "history")
NOT_OURS = re.compile(r"[\^CcGgXx]")
"""Letters of `history` for what we do not look at: directions turned round, checksums, gaps, where Zeek stopped."""


def logs() -> list[tuple[str, Capture]]:
    """Name of each log below expected/zeek, and the chosen capture that it is of."""
    captures = {f"captures/{capture.name}": capture for capture in chosen_captures()}
    entries = json.loads((CORPUS / "expected" / "zeek" / "zeek_map.json").read_text(encoding="utf-8"))
    found = [(f"{entry['test']}/{entry['file']}", entry["capture"]) for entry in entries]
    return sorted((log, captures[capture]) for log, capture in found if capture in captures and connections(log))


def connections(log: str) -> list[dict[str, str]]:
    """Rows of a log that can be compared: not outer connections of tunnels, which we do not keep, nor without counts.

    The names of the first columns are changed in some of the tests: they are taken by place, behind `uid`.
    """
    columns: list[str] = []
    rows = []
    for line in (CORPUS / "expected" / "zeek" / log).read_text(encoding="utf-8").splitlines():
        if line.startswith("#fields"):
            columns = line.split("\t")[1:]
            first = columns.index("uid") + 1
            columns[first : first + 4] = ["src_ip", "src_port", "dst_ip", "dst_port"]
        elif not line.startswith("#"):
            rows.append(dict(zip(columns, line.split("\t"), strict=True)))
    parents = {uid for row in rows for uid in row.get("tunnel_parents", UNSET).split(",")}
    return [row for row in rows if row["uid"] not in parents and row["orig_pkts"] != UNSET]


def zeek(log: str) -> Totals:
    """What a log says in all."""

    def sent(row: dict[str, str], side: str) -> tuple[int, int]:
        return int(row[f"{side}_pkts"]), int(row[f"{side}_ip_bytes"])

    return totals(
        (
            int(row.get("ip_proto") or PROTOCOLS[row["proto"]]),
            (row["src_ip"], int(row["src_port"])),
            (row["dst_ip"], int(row["dst_port"])),
            sent(row, "orig"),
            sent(row, "resp"),
        )
        for row in connections(log)
    )


def test_octets_are_those_of_zeek_or_the_difference_is_explained():
    """Packets and IP octets of each end, inner connections of tunnels, whatever ends them."""
    wrong, equal, explained = [], 0, 0
    for log, capture in logs():
        ours = our_totals(assemble(capture.path, SETTINGS).flows, "ip")
        differing = alone(ours, zeek(log))
        stated = ZEEK[log][1:] if log in ZEEK else (0, 0)
        if differing != stated:
            wrong.append(f"{log} ({capture.name}): {differing} differ, {stated} are explained")
        elif log in ZEEK:
            explained += 1
        else:
            equal += 1
    print(f"Zeek: {equal + explained + len(wrong)} logs, {equal} equal, {explained} explained")
    assert not wrong, "\n".join(wrong)
    assert equal


def words(rows: list[dict[str, Any]]) -> dict[Any, tuple[str, str]]:
    """State and history of each connection that its addresses, ports and packets tell from all others."""
    names = ("proto", "src_ip", "src_port", "dst_ip", "dst_port", "orig_pkts", "resp_pkts")
    keyed = [(tuple(str(row[name]) for name in names), row) for row in rows if row.get("conn_state", UNSET) != UNSET]
    counted = Counter(key for key, _ in keyed)
    return {
        key: (row["conn_state"], NOT_OURS.sub("", row["history"] or UNSET)[:24] or UNSET)
        for key, row in keyed
        if counted[key] == 1 and row["proto"] in PROTOCOLS
    }


def test_states_and_histories_are_those_of_zeek():
    """Of every TCP and UDP connection that both have with the same packets."""
    equal, wrong = 0, []
    settings = FlowSettings(feature_sets=("flowbeam@1",))
    of_number = {number: name for name, number in PROTOCOLS.items()}
    for log, capture in logs():
        flows = assemble(capture.path, settings, columns=WORDS).flows
        for flow in flows:
            flow |= {
                "proto": of_number.get(flow["protocol"], UNSET),
                "orig_pkts": flow["fwd_packets"],
                "resp_pkts": flow["rev_packets"],
            }
        ours, theirs = words(flows), words([row for row in connections(log) if row.get("history")])
        both = ours.keys() & theirs.keys()
        wrong += [f"{log} {key}: {ours[key]}, Zeek {theirs[key]}" for key in sorted(both) if ours[key] != theirs[key]]
        equal += sum(ours[key] == theirs[key] for key in both)
    print(f"Zeek: {equal} states and histories equal")
    assert not wrong, "\n".join(wrong)
    assert equal


@pytest.mark.skipif(not CHECK_ALL, reason="the sample has not all captures")
def test_the_table_of_differences_is_of_logs_that_exist():
    """Nothing is explained that cannot differ."""
    assert set(ZEEK) <= {log for log, _ in logs()}
