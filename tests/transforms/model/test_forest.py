"""Forests of model folders: they say what YDF says, whatever the batch."""

import shutil

import numpy as np
import pytest
from model_testing import CLASSES, FEATURES, SET, classes_of, described, made_up_flows, save, train

from transforms.model import forest
from transforms.model.forest import Forest, decide, open_forest
from transforms.model.inputs import model_inputs
from transforms.records import InputError

FLOWS = made_up_flows(1000)
INPUTS = model_inputs(FLOWS, SET, FEATURES)


@pytest.fixture(scope="module")
def trees():
    return train(FLOWS)


def test_a_forest_out_of_its_folder_says_what_ydf_says(trees, tmp_path):
    model = save(trees, tmp_path / "office")
    opened = open_forest(tmp_path / "office")
    assert opened.model == model
    np.testing.assert_array_equal(opened.probabilities(INPUTS), trees.predict(INPUTS))
    assert opened.probabilities(INPUTS).dtype == np.float32


def test_a_row_means_the_same_in_every_batch(trees):
    """Alone, among seven, among a thousand, and in another order."""
    whole = Forest(described(trees), trees).probabilities(INPUTS)
    backwards = {name: values[::-1] for name, values in INPUTS.items()}
    np.testing.assert_array_equal(Forest(described(trees), trees).probabilities(backwards)[::-1], whole)
    for size in (1, 7, 64):
        part = {name: values[:size] for name, values in INPUTS.items()}
        np.testing.assert_array_equal(Forest(described(trees), trees).probabilities(part), whole[:size])


@pytest.mark.parametrize("learner", ["GradientBoostedTrees", "RandomForest"])
@pytest.mark.parametrize("classes", [("benign", "attack"), ("attack", "benign")], ids="-".join)
def test_two_classes_have_a_probability_each(learner, classes):
    """YDF tells the second one's alone, whichever class that is."""
    trees = train(FLOWS, classes, learner)
    opened = Forest(described(trees), trees)
    found = opened.probabilities(INPUTS)
    assert found.shape == (1000, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    verdicts = opened.verdicts(found, 0.5)
    said = np.array(opened.model.classes)[verdicts.predicted]
    assert (said == classes_of(FLOWS, classes)).mean() > 0.9
    np.testing.assert_array_equal(verdicts.alert, said == "attack")


def test_verdicts():
    """The score is all that is not benign; an alert is never called benign, whatever the threshold."""
    probabilities = np.array([[0.5, 0.3, 0.2], [0.9, 0.04, 0.06], [0.2, 0.2, 0.6], [0, 0, 1]], np.float32)
    verdicts = decide(probabilities, benign=0, threshold=0.5)
    np.testing.assert_allclose(verdicts.score, [0.5, 0.1, 0.8, 1], rtol=1e-6)
    assert verdicts.predicted.tolist() == [1, 0, 2, 2]
    assert verdicts.alert.tolist() == [True, False, True, True]
    assert decide(probabilities, benign=1, threshold=0.99).predicted.tolist() == [0, 0, 2, 2]
    assert decide(probabilities, benign=2, threshold=0).predicted.tolist() == [0, 0, 0, 0]


def test_no_flows_have_no_verdicts(trees):
    opened = Forest(described(trees), trees)
    found = opened.probabilities({name: values[:0] for name, values in INPUTS.items()})
    assert found.shape == (0, 3)
    assert opened.verdicts(found, 0.5).score.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"classes": ("scan", "flood", "benign")}, "the classes of its forest are benign, flood, scan, those of"),
        ({"classes": ("benign", "flood"), "task": "binary"}, "those of model.json benign, flood"),
        ({"features": ("fwd_packets", "rev_packets")}, "its forest needs flow_duration_us, flow_iat_mean_us, flow_syn"),
    ],
    ids=["order-of-classes", "number-of-classes", "features"],
)
def test_a_description_of_another_forest_is_refused(trees, changes, refusal):
    with pytest.raises(InputError, match=refusal):
        Forest(described(trees, **changes), trees)


def test_classes_that_a_forest_only_numbers_are_named_by_the_description(trees):
    """TensorFlow Decision Forests knows whole numbers for labels."""
    numbers = {name: str(number) for number, name in enumerate(CLASSES)}
    numbered = train(FLOWS, tuple(numbers.values()))
    assert Forest(described(trees), numbered).model.classes == CLASSES


def test_a_forest_that_predicts_numbers_is_refused(tmp_path):
    ydf = forest.ydf_library()
    data = {**INPUTS, "label": INPUTS["fwd_packets"]}
    trees = ydf.GradientBoostedTreesLearner(label="label", task=ydf.Task.REGRESSION, num_trees=2).train(data)
    with pytest.raises(InputError, match="its forest does REGRESSION, not CLASSIFICATION"):
        Forest(described(train(FLOWS)), trees)


def test_what_ydf_cannot_read_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"YDF cannot read the forest: FAILED_PRECONDITION"):
        forest.load_trees(tmp_path)


def test_a_folder_replaced_while_it_is_read_is_read_again(trees, tmp_path, monkeypatch):
    """What is used are the files that were checked, or none."""
    folder, other = tmp_path / "office", tmp_path / "other"
    save(trees, folder)
    new = save(train(FLOWS, num_trees=5), other, name="new")
    load = forest.load_trees

    def replaced_before_it_is_loaded(place):
        if other.exists():
            shutil.rmtree(folder)
            other.rename(folder)
        return load(place)

    monkeypatch.setattr(forest, "load_trees", replaced_before_it_is_loaded)
    opened = open_forest(folder)
    assert opened.model == new
    assert opened.trees.num_trees() == load(folder / "forest").num_trees()
