"""The model that comes with the project: whole, small, and good at what it was made for."""

import re
import sys
from pathlib import Path

import duckdb
import pytest

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "demo"))

import alerts  # noqa: E402

from pipelines import flows, generate  # noqa: E402
from transforms.model.folder import read_model_folder  # noqa: E402

MODEL = TOP / "models" / "demo"


def test_it_is_whole_small_and_says_what_it_is():
    model = read_model_folder(MODEL)
    assert model.name == "demo"
    assert sum(path.stat().st_size for path in MODEL.rglob("*")) < 1_000_000
    assert "generated" in model.training["note"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Traffic of a seed and a profile that the model has not seen, scored by the main job, and the truth about it."""
    folder = tmp_path_factory.mktemp("scored")
    capture, truth, made = folder / "attacks.pcap", folder / "truth.csv", folder / "flows"
    traffic = ["--profile", "attacks", "--seed", "5", "--packets", "30000", "--labels", str(truth), "--quiet"]
    assert generate.main(["--output", str(capture), *traffic]) == 0
    job = ["--runner=DirectRunner", "--input", str(capture), "--output", f"parquet:{made}", "--quiet"]
    assert flows.main([*job, "--model", str(MODEL), "--explain", "3", "--drift_window_s", "0"]) == 0
    return made, truth


def test_the_alerts_are_the_attacks(scored):
    """Every flow is scored; recall of each attack is 0.95 or more, false alarms at most 1 of 1,000."""
    made, truth = scored
    rows = duckdb.execute(
        "SELECT class, avg(is_alert::INT) FROM read_parquet($made || '/*/*.parquet') AS f JOIN read_csv($truth) AS t"
        " ON lower(hex(f.flow_id)) = t.flow_id GROUP BY class",
        {"made": str(made), "truth": str(truth)},
    ).fetchall()
    alerted = dict(rows)
    assert alerted.pop("benign", 0.0) <= 0.001
    assert alerted
    assert min(alerted.values()) >= 0.95, alerted


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
