"""Whether a model still fits, as a user of the main job is told: captures, and a line where labels come back later."""

import contextlib
import shutil
import signal
import subprocess
from pathlib import Path

import duckdb
import model_testing
import numpy as np
import pytest
from command_testing import ENVIRONMENT, command, run, summary_of, table
from servers.processes import wait_until

from pipelines import capture
from sources.generate.capture import GenerateSettings, generate
from transforms.model.folder import FOREST, write_model_folder
from transforms.model.forest import ydf_library
from transforms.model.inputs import model_inputs
from transforms.model.reference import Reference

LIMIT_S = 180
CLASSES = ("benign", "flood")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A capture, a spool of it, a model that learned from its flows, and labels: right ones, and swapped ones."""
    folder = tmp_path_factory.mktemp("drift")
    generate(GenerateSettings(output=str(folder / "c.pcap"), packets=20_000))
    assert capture.main(["--input", str(folder / "c.pcap"), "--queue", f"spool:{folder}/blocks", "--quiet"]) == 0
    summary_of("--input", folder / "c.pcap", "--output", f"parquet:{folder}/flows", folder=folder)
    (flows,) = table(folder / "flows").combine_chunks().to_batches()
    classes = np.where(model_inputs(flows, "flowbeam@1", ["fwd_packets"])["fwd_packets"] > 3, *reversed(CLASSES))
    columns = model_inputs(flows, model_testing.SET, model_testing.FEATURES)
    ydf = ydf_library()
    semantics = [ydf.Feature(name, ydf.Semantic.NUMERICAL) for name in model_testing.FEATURES]
    trees = ydf.GradientBoostedTreesLearner(label="label", features=semantics, num_trees=10).train(
        {**columns, "label": classes}
    )
    model = model_testing.described(trees)
    reference = Reference.of(
        {name: columns[name] for name in model.features}, trees.predict(columns), np.zeros(len(flows), bool)
    )

    def files(hidden: Path) -> None:
        trees.save(str(hidden / FOREST))
        (hidden / "reference.json").write_text(reference.to_json())

    write_model_folder(folder / "model", model, files)
    swapped = np.where(classes == "benign", "flood", "benign")
    for name, labels in (("right", classes), ("swapped", swapped)):
        (folder / name).mkdir()
        rows = zip(flows["flow_id"].to_pylist(), labels.tolist(), strict=True)
        lines = [f"{flow_id.hex()},{label}\n" for flow_id, label in rows]
        (folder / name / "labels.csv").write_text("flow_id,label\n" + "".join(lines))
    return folder


def drift(folder: Path) -> list[dict]:
    """The rows that were written."""
    written = duckdb.sql(f"FROM read_parquet('{folder}/drift/**/*.parquet', hive_partitioning = false)")
    return written.order("window_start_ns, event").to_arrow_table().to_pylist()


def of(rows: list[dict], *events: str) -> list[dict]:
    return [row for row in rows if row["event"] in events]


def test_the_flows_that_a_model_learned_from_raise_no_alarm(place, tmp_path):
    """Every flow is in a window, and every label met its flow."""
    words = ["--input", place / "c.pcap", "--output", "parquet:flows", "--model", place / "model"]
    ended = run(*words, "--returned_labels", place / "right", "--drift_window_s", 120, "--quiet", folder=tmp_path)
    assert ended == (0, "", "")
    rows = drift(tmp_path)
    flows = len(table(place / "flows"))
    windows = of(rows, "inputs_compared", "inputs_changed", "inputs_too_few")
    assert sum(row["flows"] for row in windows) == flows
    assert sum(row["flows"] for row in of(rows, "answers_compared")) == flows
    assert of(rows, "model_decayed") == []


def test_labels_that_say_otherwise_are_decay_and_one_line(place, tmp_path):
    words = ["--input", place / "c.pcap", "--output", "parquet:flows", "--model", place / "model"]
    ended = run(*words, "--returned_labels", place / "swapped", "--drift_window_s", 1e6, "--quiet", folder=tmp_path)
    assert ended.status == 0
    (line,) = ended.err.splitlines()
    assert "model decayed: office-" in line
    assert [row["event"] for row in drift(tmp_path) if row["event"].startswith("model")] == ["model_decayed"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--returned_labels", "nowhere"], "--returned_labels nowhere: no such file or folder"),
        (["--drift_psi", "0"], "--drift_psi: 0; give more than 0"),
        (["--drift_window_s", "0.5"], "--drift_window_s: 0.5 s; give 1 or more, or 0 for none"),
        (["--drift_lateness_s", "-1"], "--drift_lateness_s: -1 s; give 0 or more"),
        (["--drift_min_flows", "0"], "--drift_min_flows: 0; give 1 or more"),
        (["--decay_run_length", "1"], "--decay_run_length: 1; give 10 or more"),
        (
            ["--drift_window_s", "0", "--returned_labels", "x"],
            "--returned_labels: nothing is compared with --drift_window_s=0",
        ),
    ],
    ids=["labels", "psi", "window", "lateness", "flows", "run-length", "nothing"],
)
def test_mistakes_are_one_line(words, message, place, tmp_path, capsys):
    from pipelines import flows

    where = ["--input", str(place / "c.pcap"), "--output", f"parquet:{tmp_path}/flows", "--model", str(place / "model")]
    assert flows.main([*where, *words]) == 2
    assert f"flowbeam: {message}" in capsys.readouterr().err


def test_a_model_without_a_reference_is_refused(place, tmp_path, capsys):
    """Unless nothing is to be compared."""
    from pipelines import flows

    model = shutil.copytree(place / "model", tmp_path / "model")
    (model / "reference.json").unlink()
    where = ["--input", str(place / "c.pcap"), "--output", f"parquet:{tmp_path}/flows", "--model", str(model)]
    assert flows.main(where) == 2
    assert "reference.json is missing" in capsys.readouterr().err


def test_a_stream_that_ends_tells_what_the_capture_told(place, prism, tmp_path):
    """On endless input; the windows are the same, and so is the number of labels."""
    words = ["--output", "parquet:flows", "--model", place / "model", "--drift_window_s", 120, "--quiet"]
    whole = tmp_path / "whole"
    whole.mkdir()
    run("--input", place / "c.pcap", *words, "--returned_labels", place / "right", folder=whole)
    source = ["--streaming", "--stop_at_end", "--input", f"spool:{place}/blocks", "--drift_lateness_s", 1e6]
    ended = run(*prism, *source, *words, "--returned_labels", place / "right", folder=tmp_path, timeout=LIMIT_S)
    assert (ended.status, ended.err) == (0, "")
    inputs = ("inputs_compared", "inputs_changed", "inputs_too_few")
    assert of(drift(tmp_path), *inputs) == of(drift(whole), *inputs)
    assert sum(row["flows"] for row in of(drift(tmp_path), "answers_compared")) == len(table(place / "flows"))


def test_labels_that_come_to_a_running_job_are_met(place, prism, tmp_path):
    """Flows have been scored and written long before; a hidden file is not read until it has its name."""
    labels = tmp_path / "labels"
    labels.mkdir()
    shutil.copy(place / "swapped" / "labels.csv", labels / ".labels.csv")
    words = [
        "--streaming",
        "--input",
        f"spool:{place}/blocks",
        "--output",
        "parquet:flows",
        "--returned_labels",
        labels,
    ]
    words += ["--model", place / "model", "--file_max_age_s", "1", "--drift_window_s", "120"]
    with subprocess.Popen(
        command(*prism, *words),
        cwd=tmp_path,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=-1,
        stderr=-1,
        text=True,
    ) as job:
        try:
            wait_until(lambda: any(tmp_path.glob("flows/*/*.parquet")), LIMIT_S, "flows are written")
            (labels / ".labels.csv").rename(labels / "labels.csv")
            wait_until(lambda: told(tmp_path, "model_decayed"), LIMIT_S, "decay is told")
            job.send_signal(signal.SIGTERM)
            _, said = job.communicate(timeout=LIMIT_S)
        finally:
            job.kill()
    assert said.count("model decayed: ") == 1
    assert said.count("Traceback") == 0


def told(folder: Path, event: str) -> bool:
    """Whether there is such a row in a file by now."""
    with contextlib.suppress(duckdb.IOException):
        return bool(of(drift(folder), event))
    return False
