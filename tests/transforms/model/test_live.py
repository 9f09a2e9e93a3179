"""A model that changes while a job runs: taken up whole, between batches, or not at all."""

import json
import logging
import shutil

import pytest
from model_testing import FEATURES, made_up_flows, save, train

from transforms.model.live import LiveModel, ScoreSettings
from transforms.records import InputError

FLOWS = made_up_flows(300)
COLUMNS = FLOWS.schema.names


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def forests():
    return train(FLOWS), train(FLOWS, num_trees=5)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said(caplog):
    """The lines of the log, by level."""
    caplog.set_level(logging.INFO)
    return lambda level: [record.getMessage() for record in caplog.records if record.levelname == level]


def live_model(folder, clock):
    return LiveModel(ScoreSettings(str(folder)), clock)


def test_a_new_model_is_taken_up_between_batches(forests, tmp_path, clock, said):
    """Within a second, with one line that says so."""
    old = save(forests[0], tmp_path / "office")
    live = live_model(tmp_path / "office", clock)
    new = save(forests[1], tmp_path / "office")
    clock.now = 0.9
    assert live.scorer(COLUMNS).forest.model == old
    clock.now = 1
    assert live.scorer(COLUMNS).forest.model == new
    clock.now = 5
    live.scorer(COLUMNS)
    assert said("INFO") == [f"model {new.id} takes the place of {old.id}"]
    assert said("WARNING") == []


def test_a_link_that_moves_is_followed(forests, tmp_path, clock):
    save(forests[0], tmp_path / "a")
    new = save(forests[1], tmp_path / "b")
    link = tmp_path / "current"
    link.symlink_to("a")
    live = live_model(link, clock)
    (tmp_path / "next").symlink_to("b")
    (tmp_path / "next").replace(link)
    clock.now = 1
    assert live.scorer(COLUMNS).forest.model == new


def test_a_model_copied_file_by_file_is_taken_up_once_it_is_whole(forests, tmp_path, clock, said):
    """Until then the old one stays, which one line says."""
    folder = tmp_path / "office"
    old = save(forests[0], folder)
    live = live_model(folder, clock)
    new = save(forests[1], tmp_path / "new")
    (folder / "model.json").write_bytes((tmp_path / "new" / "model.json").read_bytes())
    for name in new.files:
        clock.now += 1
        assert live.scorer(COLUMNS).forest.model == old
        whole = (tmp_path / "new" / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        clock.now += 1
        assert live.scorer(COLUMNS).forest.model == old
        (folder / name).write_bytes(whole)
    clock.now += 1
    assert live.scorer(COLUMNS).forest.model == new
    assert all("is damaged or half written" in line and line.endswith("as before") for line in said("WARNING"))
    assert len(said("WARNING")) <= len(new.files)


def test_a_damaged_model_is_told_once(forests, tmp_path, clock, said):
    old = save(forests[0], tmp_path / "office")
    live = live_model(tmp_path / "office", clock)
    for length in (100, 90, 80):
        nodes = tmp_path / "office" / "forest" / "nodes-00000-of-00001"
        nodes.write_bytes(b"0" * length)
        clock.now += 1
        assert live.scorer(COLUMNS).forest.model == old
    assert len(said("WARNING")) == 1
    assert f"flows are scored by {old.id} as before" in said("WARNING")[0]


def test_a_folder_that_vanishes_leaves_the_model(forests, tmp_path, clock, said):
    old = save(forests[0], tmp_path / "office")
    live = live_model(tmp_path / "office", clock)
    shutil.rmtree(tmp_path / "office")
    for clock.now in (1, 2, 3):
        assert live.scorer(COLUMNS).forest.model == old
    assert len(said("WARNING")) == 1


def test_a_model_for_other_flows_is_not_taken_up(forests, tmp_path, clock, said):
    """The flows of a job have the features that they have."""
    old = save(forests[0], tmp_path / "office")
    live = live_model(tmp_path / "office", clock)
    save(forests[1], tmp_path / "office")
    clock.now = 1
    assert live.scorer([name for name in COLUMNS if name != FEATURES[0]]).forest.model == old
    assert "needs columns of flowbeam@1 that the flows of this job lack: fwd_packets" in said("WARNING")[0]


def test_another_threshold_is_taken_up_too(forests, tmp_path, clock):
    """It is in model.json, where a person may change it."""
    save(forests[0], tmp_path / "office")
    live = live_model(tmp_path / "office", clock)
    path = tmp_path / "office" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "threshold": 0.25}), encoding="utf-8")
    clock.now = 1
    assert live.scorer(COLUMNS).forest.model.threshold == 0.25


def test_a_model_without_a_set_cannot_score_flows(forests, tmp_path):
    save(forests[0], tmp_path / "office", feature_set=None)
    with pytest.raises(InputError, match="was trained on columns of a foreign table"):
        ScoreSettings(str(tmp_path / "office")).model()


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [({"explain": -1}, "--explain: -1"), ({"threshold": 1.1}, r"--alert_threshold: 1\.1; give a probability")],
    ids=["explain", "threshold"],
)
def test_settings_that_are_refused(settings, refusal):
    with pytest.raises(InputError, match=refusal):
        ScoreSettings("models/office", **settings)


def test_what_is_opened_is_shared_until_the_folder_changes(forests, tmp_path):
    """Steps and threads of a process open a model once; with explanations it is another thing."""
    save(forests[0], tmp_path / "office")
    plain, explained = ScoreSettings(str(tmp_path / "office")), ScoreSettings(str(tmp_path / "office"), explain=1)
    assert plain.open().forest is ScoreSettings(str(tmp_path / "office"), threshold=0.9).open().forest
    assert (plain.open().explainer is None, explained.open().explainer is None) == (True, False)
    assert explained.open().forest is explained.open().forest
    new = save(forests[1], tmp_path / "office")
    assert explained.open().forest.model == new
