import ipaddress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.addresses import address_texts, mac_texts

groups = st.lists(st.just(0) | st.integers(0, 0xFFFF), min_size=8, max_size=8)


def texts(numbers, versions):
    """`address_texts` of whole numbers."""
    hi, lo = [np.array([(number >> shift) & (1 << 64) - 1 for number in numbers], np.uint64) for shift in (64, 0)]
    return address_texts(hi, lo, np.array(versions, np.uint8)).to_pylist()


def as_python_writes(number):
    """Python's own form; before 3.13 it writes mapped addresses without dots."""
    address = ipaddress.IPv6Address(number)
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)


@settings(max_examples=100, deadline=None)
@given(st.lists(groups, max_size=10))
def test_ipv6_as_python_writes_it(addresses):
    numbers = [int.from_bytes(b"".join(group.to_bytes(2, "big") for group in address), "big") for address in addresses]
    assert texts(numbers, [6] * len(numbers)) == [as_python_writes(number) for number in numbers]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=10))
def test_ipv4_as_python_writes_it(numbers):
    mapped = [0xFFFF << 32 | number for number in numbers]
    assert texts(mapped, [4] * len(numbers)) == [str(ipaddress.IPv4Address(number)) for number in numbers]


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("::", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),  # one zero group is not shortened
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),  # the longest run
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),  # the first of equal runs
        ("2001:DB8::AB", "2001:db8::ab"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_ipv6_as_rfc_5952_has_it(address, text):
    assert texts([int(ipaddress.IPv6Address(address))], [6]) == [text]


def test_no_address_is_null():
    """Rows of both versions and none mix; the longest text fits."""
    longest = "1111:" * 7 + "1111"
    numbers = [0xFFFF << 32 | 0xFFFFFFFF, 5, int(ipaddress.IPv6Address(longest))]
    assert texts(numbers, [4, 0, 6]) == ["255.255.255.255", None, longest]
    assert texts([], []) == []


@pytest.mark.parametrize("count", [1, 1000])
def test_nothing_is_written_beyond_the_longest_texts(count, monkeypatch):
    """Buffers full of the longest texts keep the octets that lie behind them."""
    allocated = []

    def guarded(size, dtype):
        memory = np.full(int(size) + 8, 0xA5 if dtype is np.uint8 else 0, dtype)
        allocated.append(memory)
        return memory[: int(size)]

    monkeypatch.setattr("transforms.addresses.np.empty", guarded)
    ipv4 = np.full(count, 0xFFFF << 32 | 0xFFFFFFFF, np.uint64)
    ones = np.full(count, 0x1111_1111_1111_1111, np.uint64)
    address_texts(np.zeros(count, np.uint64), ipv4, np.full(count, 4, np.uint8))
    address_texts(ones, ones, np.full(count, 6, np.uint8))
    mac_texts(np.full(count, 2**48 - 1, np.uint64))
    assert all((memory[-8:] == memory[-1]).all() for memory in allocated if memory.dtype == np.uint8)


def test_macs():
    assert mac_texts(np.array([0x0123456789AB, 0, 1, 2**48 - 1], np.uint64)).to_pylist() == [
        "01:23:45:67:89:ab",
        None,
        "00:00:00:00:00:01",
        "ff:ff:ff:ff:ff:ff",
    ]
    assert mac_texts(np.zeros(0, np.uint64)).to_pylist() == []
