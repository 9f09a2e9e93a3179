"""48-bit values and list columns."""

import numpy as np
import pyarrow as pa
import pytest

from transforms.features import sequences


@pytest.mark.parametrize("value", [0, 1, sequences.LOW, sequences.LOW + 1, sequences.LARGEST])
def test_48_bits_come_back(value):
    """What a kernel splits, `joined` puts together."""
    low, high = np.array([value & sequences.LOW], np.uint32), np.array([value >> 32], np.uint16)
    assert sequences.joined(low, high).tolist() == [value]


def test_lists_are_the_beginnings_of_rows():
    """Each list has its count; a row without values is empty."""
    counts = np.array([1, 0, 2])
    begin = sequences.offsets(counts)
    column = sequences.lists(sequences.beginnings(np.arange(6).reshape(3, 2), counts, begin), begin, pa.int8())
    assert column.to_pylist() == [[0], [], [4, 5]]
    assert column.type == pa.list_(pa.int8())


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i8"])
def test_rows_may_lie_apart(kind):
    """An array field of records is read where it lies, whatever the size of its items."""
    records = np.zeros(3, np.dtype([("before", "u1"), ("values", kind, 2), ("behind", "u8")], align=True))
    records["values"], records["behind"] = [[1, 2], [3, 4], [5, 6]], 255
    counts = np.array([2, 1, 2])
    assert sequences.beginnings(records["values"], counts, sequences.offsets(counts)).tolist() == [1, 2, 3, 5, 6]


def test_room_is_left_for_what_follows():
    """Where a list is longer than what is copied, its end is left to the caller."""
    begin = sequences.offsets(np.array([0, 3, 1]))
    values = sequences.beginnings(np.array([[1, 2], [3, 4], [5, 6]]), np.array([0, 2, 1]), begin)
    values[2] = 0
    assert values.tolist() == [3, 4, 0, 5]


def test_no_values_at_all():
    """Empty lists only, and no row at all."""
    for rows in (0, 2):
        begin = sequences.offsets(np.zeros(rows, np.int64))
        assert len(sequences.beginnings(np.zeros((rows, 2)), np.zeros(rows, np.int64), begin)) == 0
