"""The model that comes with the project: whole, small, and good at what it was made for."""

import re
import sys
from pathlib import Path

import duckdb
import pytest

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "demo"))

import alerts  # noqa: E402
from verdict_testing import alerted, generated, misjudged, reasons, streamed  # noqa: E402

from transforms.model.folder import read_model_folder  # noqa: E402

MODEL = TOP / "models" / "demo"


def test_it_is_whole_small_and_says_what_it_is():
    model = read_model_folder(MODEL)
    assert model.name == "demo"
    assert sum(path.stat().st_size for path in MODEL.rglob("*")) < 1_000_000
    assert "generated" in model.training["note"]


def sizes(*sides: str) -> set[str]:
    """Features that say how large packets are, and what is in them."""
    return {f"{side}_{what}_octets_{which}" for side in sides for what in WHAT for which in WHICH}


WHAT, WHICH = ("ip", "frame", "payload"), ("min", "max", "mean", "std", "variance")

HEADERS = sizes("fwd", "flow") | {"fwd_header_octets", "fwd_header_octets_min", "fwd_subflow_ip_octets"}
ANSWERS = sizes("rev") | {"rev_header_octets", "rev_subflow_ip_octets", "rev_subflow_payload_octets", "down_up_ratio"}
GAPS = {f"{side}_iat_{which}_us" for side in ("fwd", "rev", "flow") for which in ("min", "max", "mean", "std", "total")}
BALANCE = {"producer_consumer_ratio", "down_up_ratio"}
UPLOADS = {"fwd_bulk_octets_mean", "fwd_bulk_packets_mean", "fwd_subflow_ip_octets", "fwd_subflow_payload_octets"}

CHANGED = {
    "syn_flood": HEADERS | {"rev_header_octets", "flow_ack_count"},  # one SYN without options, no answer
    "horizontal_scan": HEADERS | {"rev_header_octets", "flow_rst_count"},  # a SYN of one option, a RST if anything
    "vertical_scan": HEADERS | {"rev_header_octets", "flow_rst_count"},
    "slow_http": ANSWERS | GAPS | BALANCE | {"rev_ip_octets_per_s"},  # a few octets every few seconds, no answer
    "dns_amplification": ANSWERS | BALANCE | sizes("fwd", "flow"),  # large answers to what nobody asked
    "ssh_brute_force": ANSWERS | GAPS | sizes("fwd", "flow") | {"fwd_psh_count", "rev_psh_count", "flow_psh_count"},
    "beaconing": ANSWERS | BALANCE | sizes("fwd", "flow"),  # one request and one answer, of the same sizes every time
    "exfiltration": ANSWERS | BALANCE | UPLOADS,  # much goes out, next to nothing comes back
}
"""What each attack does to its flows; how far away the attacker is, is none of it."""


@pytest.fixture(scope="module")
def scored(prism, tmp_path_factory):
    """Traffic that the model has not seen, scored by a streaming job, and the truth about it."""
    folder = tmp_path_factory.mktemp("scored")
    traffic, truth = generated(folder, "campus", 5, 60_000)
    return streamed(folder, prism, traffic, MODEL), truth


def test_the_alerts_are_the_attacks(scored):
    """Recall of each attack is 0.95 or more, false alarms are at most 1 of 1,000."""
    found = alerted(*scored)
    assert found.keys() == CHANGED.keys() | {"benign"}
    assert not misjudged(found), found


@pytest.mark.parametrize("attack", CHANGED)
def test_an_explanation_names_what_the_attack_changes(attack, scored):
    """Of each alert, one of the three features that moved the score most."""
    for named in reasons(*scored)[attack]:
        assert CHANGED[attack] & {reason["feature"] for reason in named if reason["direction"] == "raises"}, named


def test_the_demo_shows_who_attacked_whom_and_why(scored, capsys):
    made, _ = scored
    assert alerts.main(str(made)) == 0
    shown = capsys.readouterr().out
    assert re.search(r"scan +│ +1\.000 │ [\d.:a-f]+ ", shown)
    assert "↑" in shown
    assert "why" in shown


def test_without_alerts_it_says_so(scored, tmp_path, capsys):
    made, _ = scored
    (tmp_path / "hour").mkdir()
    duckdb.execute(
        f"COPY (SELECT * REPLACE (false AS is_alert) FROM '{made}/*/*.parquet') TO '{tmp_path}/hour/a.parquet'"
    )
    assert alerts.main(str(tmp_path)) == 0
    assert capsys.readouterr().out == "no alerts\n"
