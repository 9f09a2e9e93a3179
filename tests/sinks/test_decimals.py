"""Numbers are written in the fewest digits that read back as them, the way Python writes them."""

import json
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sinks.decimals import INTEGER_OCTETS, REAL_OCTETS, put_integer, put_real
from transforms.kernel import kernel


@kernel
def put_reals(numbers, out, ends):
    """Writes numbers, each to its row."""
    for i in range(len(numbers)):
        ends[i] = put_real(out[i], 0, numbers[i])


@kernel
def put_integers(numbers, out, ends):
    """Writes numbers, each to its row."""
    for i in range(len(numbers)):
        ends[i] = put_integer(out[i], 0, numbers[i])


def written(numbers, put, most):
    """The texts of numbers."""
    out, ends = np.zeros((len(numbers), most), np.uint8), np.zeros(len(numbers), np.int64)
    put(numbers, out, ends)
    return [row[:end].tobytes().decode() for row, end in zip(out, ends.tolist(), strict=True)]


def digits(text):
    """The digits that count."""
    return text.lower().partition("e")[0].replace(".", "").strip("-0")


def check(numbers):
    for number, text in zip(numbers.tolist(), written(numbers, put_reals, REAL_OCTETS), strict=True):
        assert json.loads(text) == number
        assert digits(text) == digits(repr(number))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@example([5e-324, sys.float_info.min, sys.float_info.max, -0.0, 0.1 + 0.2, 9007199254740993.0, 1e22, 1e23, 9.5e-7])
def test_doubles_read_back_in_the_fewest_digits(numbers):
    check(np.array(numbers))


def test_bounds_of_doubles_read_back():
    """Powers of two, below which doubles are denser; of ten; the least ones; what has few digits; any bits."""
    twos, tens = np.ldexp(1.0, np.arange(-1074, 1024)), np.array([float(f"1e{ten}") for ten in range(-323, 309)])
    any_bits = np.random.default_rng(1).integers(0, 0x7FF0 << 48, 20_000, np.uint64).view(np.float64)
    near = [np.nextafter(numbers, towards) for numbers in (twos, tens) for towards in (0, np.inf)]
    check(np.concatenate([twos, tens, *near, np.arange(1, 2000) * 5e-324, np.arange(1, 5000) / 1000, any_bits]))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-3.0, "-3"),
        (2.5, "2.5"),
        (-142.2352941, "-142.2352941"),
        (0.001, "0.001"),
        (1.25e-6, "0.00000125"),
        (1e-7, "1e-7"),
        (-1.5e300, "-1.5e300"),
        (float(1 << 53), "9.007199254740992e15"),
    ],
)
def test_the_usual_ones_are_as_people_write_them(number, text):
    assert written(np.array([number]), put_reals, REAL_OCTETS) == [text]


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1))
@example([sign * (10**power + more) for power in range(19) for more in (-1, 0, 1) for sign in (-1, 1)])
@example([-(1 << 63), (1 << 63) - 1])
def test_integers_are_as_python_writes_them(numbers):
    assert written(np.array(numbers, np.int64), put_integers, INTEGER_OCTETS) == [str(number) for number in numbers]
