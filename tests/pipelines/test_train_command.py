"""`pipelines.train` as its user runs it: a model folder, its report, judging it, training it further."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from command_testing import ENVIRONMENT
from training_testing import HEADER, cic_table

from pipelines.train import NOT_BETTER, main
from transforms.model.folder import read_model_folder
from transforms.model.forest import open_forest
from transforms.model.reference import Reference

CIC = ["--label_column", "Label", "--features", "cic@1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes, and a model of them."""
    folder = tmp_path_factory.mktemp("trained")
    table = cic_table(folder / "a.csv", 600, ("BENIGN", "DDoS", "Bot"))
    arguments = ["--flows", str(table), *CIC, "--split", "random:0.3", "--output", str(folder / "models" / "net")]
    assert main([*arguments, "--max_fpr", "0.01", "--quiet"]) == 0
    return folder


def test_a_model_folder_is_whole_and_says_where_it_came_from(folder):
    model = read_model_folder(folder / "models" / "net")
    assert (model.task, model.feature_set, model.benign) == ("multiclass", "cic@1", "BENIGN")
    assert model.classes == ("BENIGN", "Bot", "DDoS")
    assert model.features == ("Flow Duration", "Total Fwd Packet", "Fwd Packet Length Mean", "Flow IAT Std")
    assert model.training["split"] == "random:0.3"
    assert model.training["files"] == {str(folder / "a.csv"): 600}
    assert [leak["column"] for leak in model.training["leaks"]] == ["Dst Port"]
    assert model.metrics["accuracy"] > 0.96
    assert set(model.files) >= {"reference.json", "report.html", "metrics.json", "rows.parquet"}
    assert [path.name for path in (folder / "models").iterdir()] == ["net"]


def test_its_parts_belong_together(folder):
    place = folder / "models" / "net"
    forest = open_forest(place)
    reference = Reference.from_json((place / "reference.json").read_text())
    assert tuple(reference.features) == forest.model.features
    assert reference.judged == forest.model.metrics["rows"] == 180
    inputs = {name: np.full(3, np.nan, np.float32) for name in forest.model.features}
    assert forest.probabilities(inputs).shape == (3, 3)
    metrics = json.loads((place / "metrics.json").read_text())
    assert metrics["accuracy"] == forest.model.metrics["accuracy"]
    assert list(metrics["other_splits"]) == ["time:0.7"]
    assert len(metrics["learning_curve"]) == 3
    page = (place / "report.html").read_text()
    assert "Dst Port" in page
    assert "<script" not in page


def test_the_same_data_and_seed_are_the_same_model(folder, tmp_path):
    """Byte by byte, but for the time of its making."""
    for name in ("one", "two"):
        arguments = ["--flows", str(folder / "a.csv"), *CIC, "--brief", "--quiet", "--split", "random:0.3"]
        assert main([*arguments, "--output", str(tmp_path / name)]) == 0
    one, two = (read_model_folder(tmp_path / name) for name in ("one", "two"))
    forests = [{name: digest for name, digest in model.files.items() if "forest/nodes" in name} for model in (one, two)]
    assert forests[0] == forests[1] != {}
    assert one.training == two.training


def test_a_split_is_always_stated(folder, tmp_path, capsys):
    arguments = ["--flows", str(folder / "a.csv"), *CIC, "--brief", "--output", str(tmp_path / "m")]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "Split in time: trained on the first 67 %" in said.out
    assert "refused: Dst Port (a port); --allow_leaks would keep it" in said.err
    assert "the data has no times" in said.err


def test_allowed_leaks_are_learned_from(folder, tmp_path):
    arguments = ["--flows", str(folder / "a.csv"), *CIC, "--brief", "--quiet", "--allow_leaks", "Dst Port"]
    assert main([*arguments, "--output", str(tmp_path / "m")]) == 0
    model = read_model_folder(tmp_path / "m")
    assert model.features[0] == "Dst Port"
    assert model.training["leaks"] == [{"column": "Dst Port", "reason": "a port", "allowed": True}]


@pytest.mark.parametrize("selection", ["permutation", "catraca"])
def test_features_are_chosen_and_settings_tuned(folder, tmp_path, selection):
    arguments = ["--flows", str(folder / "a.csv"), *CIC, "--brief", "--quiet", "--tune", "1", "--task", "binary"]
    chosen = ["--selection", selection, "--max_features", "2", "--split", "random:0.3", "--output", str(tmp_path / "m")]
    assert main([*arguments, *chosen]) == 0
    model = read_model_folder(tmp_path / "m")
    assert len(model.features) == 2
    assert model.classes == ("BENIGN", "attack")
    if selection == "permutation":
        assert "Flow IAT Std" not in model.features


def test_a_table_of_other_columns_can_be_judged_but_belongs_to_no_set(tmp_path):
    rows = [f"{'tcp' if i % 2 else 'udp'},{i % 7},{i % 3},{'normal' if i % 2 else 'bad'}" for i in range(300)]
    (tmp_path / "a.txt").write_text("\n".join(rows) + "\n")
    shared = ["--flows", str(tmp_path / "a.txt"), "--label_column", "4", "--no_header", "--quiet"]
    arguments = ["--features", "all", "--split", "random:0.2", "--brief", "--allow_leaks", "all"]
    assert main([*shared, *arguments, "--output", str(tmp_path / "m")]) == 0
    model = read_model_folder(tmp_path / "m")
    assert (model.feature_set, model.features) == (None, ("1", "2", "3"))
    assert model.training["words"] == {"1": ["udp", "tcp"]}
    assert main([*shared, "--evaluate", str(tmp_path / "m"), "--metrics", str(tmp_path / "m.json")]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["accuracy"] == 1


def test_a_model_is_judged_on_other_data(folder, tmp_path, capsys):
    """Figures of every row; another case of labels is the same label; the same page."""
    table = cic_table(tmp_path / "b.csv", 300, ("BENIGN", "DDoS"), seed=2)
    table.write_text(table.read_text().replace("DDoS", "ddos"))
    arguments = ["--evaluate", str(folder / "models" / "net"), "--flows", str(table), "--label_column", "Label"]
    assert main([*arguments, "--metrics", str(tmp_path / "m.json")]) == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["rows"] == 300
    assert metrics["accuracy"] > 0.95
    assert set(metrics) >= {"macro_f1", "confusion", "alarms"}
    assert metrics["classes"]["DDoS"]["rows"] + metrics["classes"]["BENIGN"]["rows"] == 300
    assert "<html" in (tmp_path / "m.html").read_text()
    assert "300 rows judged" in capsys.readouterr().out


def test_a_class_that_the_model_does_not_know_counts_as_wrong(folder, tmp_path, capsys):
    table = cic_table(tmp_path / "b.csv", 200, ("BENIGN", "DDoS"), seed=3)
    table.write_text(table.read_text().replace("DDoS", "Worm"))
    arguments = ["--evaluate", str(folder / "models" / "net"), "--flows", str(table), "--label_column", "Label"]
    assert main([*arguments, "--metrics", str(tmp_path / "m.json")]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["classes"]["Worm"]["recall"] == 0
    assert "did not know Worm" in capsys.readouterr().out


def trained_further(folder, tmp_path, table, *more):
    place = ["--continue", str(folder / "models" / "net"), "--flows", str(table), "--label_column", "Label"]
    return main([*place, "--split", "random:0.3", "--output", str(tmp_path / "next"), *more])


def test_a_model_trained_further_learns_what_is_new_and_keeps_its_history(folder, tmp_path, capsys):
    """Old and new are judged on the same rows, held back from both."""
    table = cic_table(tmp_path / "b.csv", 600, ("BENIGN", "DDoS", "Bot"), seed=4, moved=30)
    assert trained_further(folder, tmp_path, table) == 0
    old, new = read_model_folder(folder / "models" / "net"), read_model_folder(tmp_path / "next")
    assert new.id != old.id
    assert [past["id"] for past in new.history] == [old.id]
    assert new.history[0]["accuracy"] == old.metrics["accuracy"]
    assert (new.features, new.classes, new.feature_set) == (old.features, old.classes, old.feature_set)
    said = capsys.readouterr().out
    assert "180 new rows, held back" in said
    assert "180 older rows, held back" in said
    assert f"takes the place of {old.id}" in said
    assert old.id in (tmp_path / "next" / "report.html").read_text()


def test_a_new_class_becomes_one_of_its_own(folder, tmp_path):
    table = cic_table(tmp_path / "b.csv", 400, ("BENIGN", "DDoS"), seed=5, moved=12)
    table.write_text(table.read_text().replace("DDoS", "Worm"))
    assert trained_further(folder, tmp_path, table, "--quiet") == 0
    assert read_model_folder(tmp_path / "next").classes == ("BENIGN", "Bot", "DDoS", "Worm")


def test_what_is_not_better_replaces_nothing(folder, tmp_path, capsys):
    """Labels that are noise teach nothing."""
    table = cic_table(tmp_path / "b.csv", 400, ("BENIGN", "DDoS", "Bot"), seed=6)
    random = np.random.default_rng(1)
    lines = table.read_text().splitlines()[1:]
    wrong = [f"{line.rpartition(',')[0]},{random.choice(['BENIGN', 'DDoS', 'Bot'])}" for line in lines]
    train = "\n".join([HEADER, *wrong[:280], *lines[280:]])
    table.write_text(train + "\n")
    place = ["--continue", str(folder / "models" / "net"), "--flows", str(table), "--label_column", "Label"]
    assert main([*place, "--split", "order:0.7", "--output", str(tmp_path / "next"), "--quiet"]) == NOT_BETTER
    assert "stays as it is" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"trees": {"branches": 3}}, "unexpected keyword argument 'branches'"),
        ({"max_fpr": "few"}, "could not convert string to float"),
        ({"words": 3}, "has no attribute 'items'"),
    ],
)
def test_training_that_another_version_tells_of_otherwise_is_one_line(folder, tmp_path, capsys, said, why):
    place = shutil.copytree(folder / "models" / "net", tmp_path / "net")
    description = json.loads((place / "model.json").read_text())
    description["training"] |= said
    (place / "model.json").write_text(json.dumps(description))
    assert main(["--continue", str(place), "--flows", str(folder / "a.csv"), "--label_column", "Label"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("flowbeam: model net: model.json: training: ")
    assert why in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flows", "a.csv"], "say where the model goes"),
        (["--output", "m"], "say which rows"),
        (["--flows", "none.csv", "--output", "m"], "--flows none.csv: no such file or folder"),
        (["--flows", "a.csv", "--output", "m", "--features", "cic@9"], "unknown feature set 'cic@9'"),
        (["--flows", "a.csv", "--output", "m", "--split", "day:1"], "--split day:1"),
        (["--flows", "a.csv", "--output", "m", "--max_fpr", "2"], "--max_fpr 2.0"),
        (["--flows", "a.csv", "--output", "m", "--selection", "catraca"], "say how many with --max_features"),
        (["--flows", "a.csv", "--output", "m", "--tune", "-1"], "--tune -1"),
        (["--flows", "a.csv", "--output", "m", "--metrics", "x"], "--metrics: goes with --evaluate"),
        (["--flows", "a.csv", "--output", "..", "--features", "cic@1"], "--output ..: has no name"),
        (["--flows", "a.csv", "--evaluate", "m"], "model m: there is no such folder"),
        (["--flows", "a.csv", "--evaluate", "m", "--continue", "m"], "do one after the other"),
        (["--flows", "a.csv", "--evaluate", "m", "--output", "x"], "--evaluate writes no model"),
        (["--flows", "a.csv", "--output", "m", "--keep_rows", "-4"], "--keep_rows -4"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(f"{HEADER}\n")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        (["1,2,3,4,5,BENIGN"] * 10, "all 10 labelled rows are 'BENIGN'"),
        (["1,2,3,4,5,NaN"] * 10, "no row has a label"),
        (["1,2,3,4,5,BENIGN"] * 7 + ["9,9,9,9,9,Bot"] * 3, "the split leaves only BENIGN to learn from"),
    ],
    ids=["none", "one-class", "nan", "one-class-first"],
)
def test_data_that_cannot_be_learned_from_is_one_line(tmp_path, capsys, rows, message):
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    assert main(["--flows", str(tmp_path / "a.csv"), *CIC, "--output", str(tmp_path / "m"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_ten_rows_are_enough_to_run(tmp_path):
    rows = [f"{i},2,3,4,5,{'BENIGN' if i % 2 else 'Bot'}" for i in range(10)]
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    arguments = ["--flows", str(tmp_path / "a.csv"), *CIC, "--output", str(tmp_path / "m"), "--max_fpr", "0.001"]
    assert main([*arguments, "--quiet"]) == 0
    assert any("too few to tell" in line for line in (tmp_path / "m" / "report.html").read_text().splitlines())


@pytest.mark.parametrize("begun", [[], ["--continue", "none"]], ids=["new", "further"])
def test_a_place_that_is_no_model_is_told_before_anything_is_read(tmp_path, capsys, begun):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "precious").write_text("")
    assert main([*begun, "--flows", "none.csv", *CIC, "--output", str(tmp_path / "m")]) == 2
    assert "is there already and is no model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk (tmpfs)")
@pytest.mark.parametrize("size", ["16k", "96k"])
def test_a_full_disk(folder, tmp_path, size):
    """One line; YDF itself would end the process in the middle of a file."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    command = [sys.executable, "-m", "pipelines.train", "--flows", str(folder / "a.csv"), *CIC, "--quiet"]
    try:
        ended = subprocess.run(
            [*command, "--output", str(small / "net")], env=ENVIRONMENT, capture_output=True, text=True
        )
        left = list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)
    assert (ended.returncode, left) == (2, [])
    line = ended.stderr.splitlines()[-1]
    assert line == f"flowbeam: model {small / 'net'}: cannot be written: {os.strerror(errno.ENOSPC)}"
    assert "Traceback" not in ended.stderr


def test_help_starts_without_what_training_needs():
    code = "import sys, pipelines.train; print({'ydf', 'apache_beam', 'matplotlib'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert ran.stdout == "set()\n"
