import numpy as np
import pytest

from training.split import SplitRule, stratified
from training.tables import Table
from transforms.records import InputError


def table(labels, times=None, groups=None):
    labels = np.array(labels, np.int32)
    return Table({"a": np.arange(len(labels), dtype=np.float32)}, labels, ("x", "y", "z"), times, groups)


def test_time_learns_from_what_came_first():
    split = SplitRule.parse("time:0.5").apply(table([0, 1, 0, 1], np.array([4, 3, 2, 1])), 1)
    assert split.train.tolist() == [3, 2]
    assert split.test.tolist() == [1, 0]
    assert split.warnings == ()


def test_without_times_the_order_is_taken_and_told():
    split = SplitRule.parse("time:0.75").apply(table([0, 1, 0, 1]), 1)
    assert split.train.tolist() == [0, 1, 2]
    assert "no times" in split.warnings[0]


def test_order_is_that_of_the_files():
    split = SplitRule.parse("order:0.5").apply(table([0, 1, 0, 1], np.array([4, 3, 2, 1])), 1)
    assert split.train.tolist() == [0, 1]


def test_random_holds_back_a_part_of_each_class():
    split = SplitRule.parse("random:0.2").apply(table([0] * 50 + [1] * 10 + [2]), 3)
    assert np.bincount(split.test // 50, minlength=2).tolist() == [10, 2]
    assert sorted([*split.train, *split.test]) == list(range(61))
    assert split.warnings == ()


def test_random_of_data_with_times_warns():
    assert "flatters" in SplitRule.parse("random:0.5").apply(table([0, 1] * 4, np.arange(8)), 1).warnings[0]


def test_a_group_is_on_one_side():
    groups = np.repeat(np.arange(10, dtype=np.uint64), 5)
    split = SplitRule.parse("group:who").apply(table([0] * 50, groups=groups), 1)
    assert len(split.test) == 10
    assert not set(groups[split.train]) & set(groups[split.test])


def test_the_same_seed_is_the_same_split():
    rows, rule = table([0, 1] * 40), SplitRule.parse("random:0.2")
    assert rule.apply(rows, 5).test.tolist() == rule.apply(rows, 5).test.tolist()
    assert rule.apply(rows, 5).test.tolist() != rule.apply(rows, 6).test.tolist()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("day:1", "write time:0.67"),
        ("time:2", "no part of the rows"),
        ("random:much", "no part of the rows"),
        ("group:", "names no column"),
        ("order:0.001", "leaves none of the 4 rows to learn from"),
        ("group:one", "all rows are of one group"),
    ],
)
def test_a_wrong_split_is_one_line(rule, message):
    with pytest.raises(InputError, match=message):
        SplitRule.parse(rule).apply(table([0, 1, 0, 1], groups=np.zeros(4, np.uint64)), 1)


def test_a_class_of_one_row_is_learned_from():
    assert not stratified(np.array([0]), 0.9, np.random.default_rng(1)).any()
