"""Arrow columns from what families yield."""

import numpy as np
import pyarrow as pa
import pytest

from transforms.arrow_columns import column, constant, is_constant


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, [None, None, None]),
        (np.array([1, 2, 3], np.uint32), [1, 2, 3]),
        (np.array([5, 5, 5], np.uint16), [5, 5, 5]),
        (np.array([[5, 1], [5, 2], [5, 3]])[:, 0], [5, 5, 5]),
        (np.ma.MaskedArray([1, 2, 3], [False, True, False]), [1, None, 3]),
        (np.ma.MaskedArray([1, 2, 3], True), [None, None, None]),
        (np.ma.MaskedArray([7, 7, 7], False), [7, 7, 7]),
        (np.ma.MaskedArray([7, 7, 7]), [7, 7, 7]),
        (np.ma.MaskedArray([7, 7, 7], [False, False, True]), [7, 7, None]),
        (pa.array([1, None, 3], pa.int8()), [1, None, 3]),
        ([1, None, 3], [1, None, 3]),
        (np.array([4, 4, 4], object), [4, 4, 4]),
    ],
    ids=[
        "none",
        "array",
        "constant",
        "strided",
        "masked",
        "all-masked",
        "unmasked",
        "no-mask",
        "constant-masked",
        "arrow",
        "list",
        "objects",
    ],
)
def test_every_form_of_values_becomes_its_column(values, expected):
    """Whatever form the values have, the column is of the field's type."""
    found = column(values, pa.int64(), 3)
    found.validate(full=True)
    assert found.type == pa.int64()
    assert found.to_pylist() == expected


def test_constant_columns_share_memory():
    """Two columns of the same number are one piece of memory, and so are two of nulls."""
    one, other = (column(np.zeros(100), pa.float64(), 100) for _ in range(2))
    assert one.buffers()[1].address == other.buffers()[1].address
    one, other = (column(None, pa.int64(), 100) for _ in range(2))
    assert one.buffers()[1].address == other.buffers()[1].address


def test_types_do_not_mix():
    """The same number in another type, or another number of rows, is another column."""
    assert column(np.zeros(4, np.int64), pa.int64(), 4).to_pylist() == [0, 0, 0, 0]
    assert column(np.zeros(4, np.int64), pa.float64(), 4).type == pa.float64()
    assert column(np.zeros(4, np.uint8), pa.uint8(), 4).type == pa.uint8()
    assert len(column(np.zeros(5, np.int64), pa.int64(), 5)) == 5


@pytest.mark.parametrize("kind", ["i8", "u4", "u2", "u1", "f8", "f4", "?"])
def test_one_other_value_is_found_wherever_it_stands(kind):
    """A column is constant only if all of its values are."""
    assert is_constant(np.zeros(9, kind))
    for index in range(9):
        values = np.zeros(9, kind)
        values[index] = 1
        assert not is_constant(values)


def test_signs_of_zero_are_kept():
    """Equal numbers with other bits are not one constant."""
    values = np.array([0.0, -0.0, 0.0])
    assert np.signbit(column(values, pa.float64(), 3).to_numpy()).tolist() == [False, True, False]


def test_constant_text():
    """A text, or null, in every row."""
    assert constant("final", 2).to_pylist() == ["final", "final"]
    assert constant(None, 2).to_pylist() == [None, None]


def test_no_rows():
    """A column may be empty."""
    assert len(column(np.zeros(0), pa.float64(), 0)) == 0
