import numpy as np
import pytest
from training_testing import rows_of

from training.classes import benign_class, fitted, known_first, prepared
from transforms.records import InputError


def table(*names):
    found = rows_of(np.arange(len(names)), x=np.arange(len(names)))
    found.classes = names
    return found


@pytest.mark.parametrize(
    ("classes", "benign"),
    [(("Attack", "BENIGN"), "BENIGN"), (("0", "1"), "0"), (("neptune", "normal"), "normal"), (("a", "b"), None)],
)
def test_benign_is_known_by_its_name(classes, benign):
    assert benign_class(classes) == benign


def test_benign_comes_first_and_others_may_be_one():
    found, task, benign = prepared(table("Bot", "DDoS", "benign"), "")
    assert (found.classes, task, benign) == (("benign", "Bot", "DDoS"), "multiclass", "benign")
    assert found.labels.tolist() == [1, 2, 0]
    found, task, _ = prepared(table("Bot", "DDoS", "benign"), "binary")
    assert (found.classes, task) == (("benign", "attack"), "binary")
    assert found.labels.tolist() == [1, 1, 0]
    assert prepared(table("a", "b"), "", "B")[0].classes == ("b", "a")


def test_labels_are_fitted_to_a_model():
    """Case is ignored; what a model of two classes does not know is an attack; others are told."""
    found, unknown = fitted(table("ddos", "Benign", "New"), ("BENIGN", "DDoS", "Bot"), "BENIGN")
    assert (found.classes, unknown) == (("BENIGN", "DDoS", "Bot", "New"), ("New",))
    assert found.labels.tolist() == [1, 0, 3]
    found, unknown = fitted(table("Bot", "DDoS", "normal"), ("benign", "attack"), "benign")
    assert (found.labels.tolist(), unknown) == ([1, 1, 0], ())
    found, _ = fitted(table("attack", "0", "Bot"), ("benign", "attack"), "benign")
    assert found.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: prepared(table("x"), ""), "all 1 labelled rows are 'x'"),
        (lambda: prepared(table("x", "y"), ""), "which label is no attack"),
        (lambda: prepared(table("x", "y"), "", "z"), "--benign z: is no label"),
        (lambda: fitted(table("cat", "dog"), ("benign", "Bot", "DDoS"), "benign"), "none of the labels cat, dog is a"),
        (lambda: fitted(table("cat", "dog"), ("benign", "attack"), "benign"), "none of the labels"),
        (lambda: known_first(table("x", "y"), np.array([0]), "x"), "the split leaves only x to learn from"),
    ],
)
def test_labels_that_cannot_be_used_are_one_line(act, message):
    with pytest.raises(InputError, match=message):
        act()


def test_classes_that_only_later_rows_have_stand_last():
    found, known = known_first(table("benign", "Bot", "DDoS"), np.array([0, 2]), "benign")
    assert (found.classes, known) == (("benign", "DDoS", "Bot"), 2)
    assert found.labels.tolist() == [0, 2, 1]
