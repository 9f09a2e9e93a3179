"""The script that makes the model which comes with the project, on little traffic."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "demo"))

import train_model

from transforms.model.folder import read_model_folder


def test_one_command_makes_a_whole_model(tmp_path, capsys, monkeypatch):
    """Of every profile and seed, judged on a capture of its own; the folder of the caller stays his."""
    monkeypatch.setattr(train_model, "TRAFFIC", [("office", 31), ("campus", 31), ("office", 32)])
    monkeypatch.setattr(train_model, "ROUNDS", 5)
    before = os.getcwd()
    assert train_model.main(["--output", str(tmp_path / "small"), "--packets", "4000"]) == 0
    assert os.getcwd() == before
    model = read_model_folder(tmp_path / "small")
    assert (model.name, model.feature_set, model.training["split"]) == ("small", "flowbeam@1", "group:file")
    assert model.training["note"] == train_model.NOTE
    assert model.training["max_fpr"] == train_model.MAX_FPR
    assert len(model.training["files"]) == 3
    assert {name.split("/")[1] for name in model.training["files"]} == {"office-31", "campus-31", "office-32"}
    assert model.classes == ("benign", "botnet", "brute_force", "dos", "exfiltration", "scan")
    assert 0 < model.threshold <= 1
    assert f"{tmp_path}/small: model {model.id}" in capsys.readouterr().out


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert train_model.main(["--output", str(tmp_path / "small"), "--packets", "0"]) == 2
    assert capsys.readouterr().err == "flowbeam: --packets=0: must be at least 1\n"
