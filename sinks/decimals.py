"""Numbers as decimal text, for kernels that write lines: integers, and doubles in the fewest digits that read back.

Doubles follow R. Giulietti, "The Schubfach way to render doubles" (2021), with powers of ten of 128 bits, rounded up:
of the decimals with the fewest digits that are read as the same number, it finds the closest.
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from transforms.kernel import kernel_part

INTEGER_OCTETS = 20
"""The most that `put_integer` writes."""

REAL_OCTETS = 25
"""The most that `put_real` writes: sign, `0.`, five zeros, 17 digits."""

_EXACT = float(1 << 53)
"""Below it, every integer is a double of its own."""

_POWERS = np.array([10**exponent for exponent in range(20)], np.uint64)
_PAIRS = np.frombuffer("".join(f"{number:02d}" for number in range(100)).encode(), np.uint8)

_LEAST_POWER = -292
_MOST_POWER = 324


def _log2_of_power_of_10(exponent):
    """The integer part of log₂ 10ᵉ, rounded down, for all exponents that there are."""
    return (exponent * 1741647) >> 19


def _power_of_10(exponent: int) -> int:
    """10ᵉ as an integer of 128 bits, rounded up, whose highest bit is set."""
    shift = 127 - _log2_of_power_of_10(exponent)
    above, below = 10 ** max(exponent, 0) << max(shift, 0), 10 ** max(-exponent, 0) << max(-shift, 0)
    return -(-above // below)


_TENS = [_power_of_10(exponent) for exponent in range(_LEAST_POWER, _MOST_POWER + 1)]
_TENS_HIGH = np.array([power >> 64 for power in _TENS], np.uint64)
_TENS_LOW = np.array([power & (1 << 64) - 1 for power in _TENS], np.uint64)

_log2_of_10_to = kernel_part(_log2_of_power_of_10)


@intrinsic
def _upper_half(context, one, other):
    """The upper 64 bits of the product of two numbers."""

    def generated(context, builder, signature, arguments):
        wide = cgutils.ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, wide(64)), arguments[0].type)

    return types.uint64(types.uint64, types.uint64), generated


@kernel_part
def _scaled(high, low, factor):
    """A power of ten times a number, the upper 64 bits of 192; the last one is set where others are lost."""
    lower = high * factor
    upper = _upper_half(high, factor)
    sum_ = lower + _upper_half(low, factor)
    if sum_ < lower:
        upper += np.uint64(1)
    return upper | np.uint64(sum_ > np.uint64(1))


@kernel_part
def _shortest(bits):
    """Digits and exponent of ten of a positive double."""
    fraction = bits & np.uint64((1 << 52) - 1)
    exponent = np.int64(bits >> np.uint64(52))
    closer_below = 0
    if exponent:
        significand = fraction | np.uint64(1 << 52)
        if fraction == 0 and exponent > 1:  # the next lower number is half as far as the next higher
            closer_below = 1
        exponent -= 1075
    else:
        significand = fraction
        exponent = -1074
    odd = significand & np.uint64(1)  # bounds are read as an even number
    ten = (exponent * 1262611 - closer_below * 524031) >> 22  # log₁₀ of 2ᵉ, or of ¾ of it
    shift = np.uint64(exponent + _log2_of_10_to(-ten) + 1)
    high, low = _TENS_HIGH[-ten - _LEAST_POWER], _TENS_LOW[-ten - _LEAST_POWER]
    four = np.uint64(4) * significand
    scaled = _scaled(high, low, four << shift)
    lower = _scaled(high, low, (four - np.uint64(2) + np.uint64(closer_below)) << shift) + odd
    upper = _scaled(high, low, (four + np.uint64(2)) << shift) - odd
    digits = scaled >> np.uint64(2)
    if digits >= np.uint64(10):
        fewer = digits // np.uint64(10)
        below = lower <= np.uint64(40) * fewer
        above = np.uint64(40) * fewer + np.uint64(40) <= upper
        if below != above:
            return fewer + np.uint64(above), ten + 1
    below = lower <= np.uint64(4) * digits
    above = np.uint64(4) * digits + np.uint64(4) <= upper
    if below != above:
        return digits + np.uint64(above), ten
    rest = scaled & np.uint64(3)
    return digits + np.uint64(rest > np.uint64(2) or (rest == np.uint64(2) and digits & np.uint64(1))), ten


@kernel_part
def _count(digits):
    """How many digits a number has."""
    count = 1
    if digits >= _POWERS[14]:
        count = 15
    elif digits >= _POWERS[7]:
        count = 8
    while count < 20 and digits >= _POWERS[count]:
        count += 1
    return count


@kernel_part
def _put_digits(out, at, digits, count):
    """Writes the last `count` digits of a number, with zeros before them; returns the place after them."""
    place = at + count
    while place > at + 1:
        higher = digits // np.uint64(100)
        pair = (digits - higher * np.uint64(100)) * np.uint64(2)
        place -= 2
        out[place] = _PAIRS[pair]
        out[place + 1] = _PAIRS[pair + np.uint64(1)]
        digits = higher
    if place > at:
        out[at] = np.uint8(48) + np.uint8(digits % np.uint64(10))
    return at + count


@kernel_part
def put_integer(out, at, number):
    """Writes an integer of 64 bits; returns the place after it."""
    digits = np.uint64(number)
    if number < 0:
        out[at] = 45
        at += 1
        digits = np.uint64(0) - digits
    return _put_digits(out, at, digits, _count(digits))


@kernel_part
def put_real(out, at, number):
    """Writes a finite double in the fewest digits that read back as it; returns the place after it."""
    if abs(number) < _EXACT and np.rint(number) == number:
        return put_integer(out, at, np.int64(number))
    if number < 0:
        out[at] = 45
        at += 1
    digits, ten = _shortest(np.float64(abs(number)).view(np.uint64))
    while digits % np.uint64(10) == 0:
        digits //= np.uint64(10)
        ten += 1
    count = _count(digits)
    point = count + ten  # digits before the point
    if -6 < point <= 0:
        out[at] = 48
        out[at + 1] = 46
        return _put_digits(out, at + 2, digits, -ten)
    within = ten < 0 < point
    before = point if within else 1
    after = _put_digits(out, at + 1, digits, count)
    for place in range(at, at + before):
        out[place] = out[place + 1]
    out[at + before] = 46
    if within:
        return after
    if count == 1:
        after = at + 1
    out[after] = 101
    return put_integer(out, after + 1, point - 1)
