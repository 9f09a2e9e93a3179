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
    column = sequences.lists(np.arange(6).reshape(3, 2), np.array([1, 0, 2]), pa.int8())
    assert column.to_pylist() == [[0], [], [4, 5]]
    assert column.type == pa.list_(pa.int8())


def test_rows_left_out_are_empty():
    """Only the rows that are named need a row of values."""
    column = sequences.lists(np.array([[7, 8]]), np.array([0, 2, 0]), pa.int64(), rows=np.array([1]))
    assert column.to_pylist() == [[], [7, 8], []]
