import numpy as np
import pytest
from training_testing import rows_of

from training.held_out import FOLDS, held_out
from training.trees import TreeSettings

SETTINGS = TreeSettings(trees=2)


def table(groups):
    rng = np.random.default_rng(1)
    found = rows_of(np.arange(60) % 2, a=rng.random(60), b=rng.random(60))
    found.groups = None if groups is None else np.arange(60, dtype=np.uint64) * np.uint64(groups) // np.uint64(60)
    return found


def test_a_group_is_never_on_both_sides(monkeypatch):
    """Where rows are of groups, trees are asked about whole groups that they have not seen: each once."""
    learned = []
    rows = table(5)

    def fit(part, *_):
        learned.append(set(part.groups.tolist()))
        return None

    monkeypatch.setattr("training.held_out.fit_trees", fit)
    monkeypatch.setattr("training.held_out.probabilities", lambda _, columns: np.zeros((len(columns["a"]), 2)))
    asked = [judged for judged, _ in held_out(rows, False, SETTINGS, 1)]
    assert len(asked) == FOLDS
    everything = set(rows.groups.tolist())
    assert sorted(map(sorted, learned)) == sorted(sorted(everything - set(rows.groups[one].tolist())) for one in asked)
    assert sorted(np.concatenate(asked).tolist()) == list(range(60))


@pytest.mark.parametrize("groups", [None, 1, 2])
def test_every_row_is_asked_about_once(groups):
    """Without groups, with a single one, and with fewer than folds."""
    asked = [judged for judged, _ in held_out(table(groups), False, SETTINGS, 1)]
    assert sorted(np.concatenate(asked).tolist()) == list(range(60))


def test_in_time_a_whole_stretch_is_asked_about(monkeypatch):
    """By trees that learned from all that is before and behind it; every row is asked about once."""
    rows = table(None)
    rows.columns["a"] = np.arange(60, dtype=np.float32)
    learned = []
    monkeypatch.setattr("training.held_out.fit_trees", lambda part, *_: learned.append(set(part.columns["a"].tolist())))
    monkeypatch.setattr("training.held_out.probabilities", lambda _, columns: np.zeros((len(columns["a"]), 2)))
    asked = [judged.tolist() for judged, _ in held_out(rows, True, SETTINGS, 1)]
    assert [row for part in asked for row in part] == list(range(60))
    assert sorted(sorted(set(range(60)) - set(part)) for part in asked) == sorted(map(sorted, learned))
    assert len(asked) == FOLDS


def test_no_forest_begins_after_a_stop(monkeypatch):
    begun = []

    def stop(part, *_):
        begun.append(part)
        raise KeyboardInterrupt

    monkeypatch.setattr("training.held_out.fit_trees", stop)
    monkeypatch.setattr("training.held_out.os.cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        list(held_out(table(None), True, SETTINGS, 1))
    assert len(begun) == 1
