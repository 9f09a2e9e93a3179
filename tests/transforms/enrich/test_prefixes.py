"""The narrowest of many networks around an address, against looking at each."""

import ipaddress

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.enrich.address_numbers import network_numbers
from transforms.enrich.prefixes import Prefixes


@st.composite
def crowded_networks(draw):
    """Networks of both versions that often lie in one another, begin or end together, or are equal."""
    version = draw(st.sampled_from([4, 6]))
    bits = 32 if version == 4 else 128
    length = draw(st.one_of(st.integers(0, bits), st.sampled_from([0, 1, bits - 1, bits, bits // 2])))
    high = draw(st.sampled_from([0, 1, 2, 3, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits // 2)) - 1]))
    address = high >> (bits - length) << (bits - length) if length else 0
    return f"{(ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(address)}/{length}"


def number(address) -> int:
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)


def span(text: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(text)
    return number(network[0]), number(network[-1]), network.prefixlen + (96 if network.version == 4 else 0)


@given(st.lists(crowded_networks(), max_size=12))
@settings(max_examples=50)
def test_the_narrowest_network_is_found(texts):
    """At the first and last address of each, and beside them; of equal ones, the first. IPv6 has no IPv4 in it."""
    prefixes = Prefixes(*network_numbers(pa.array(texts, pa.string())))
    spans = [span(text) for text in texts]
    edges = {
        0,
        (1 << 128) - 1,
        *(edge + step for first, last, _ in spans for edge in (first, last) for step in (-1, 0, 1)),
    }
    asked = sorted(edge for edge in edges if 0 <= edge < 1 << 128)
    hi = np.array([address >> 64 for address in asked], np.uint64)
    lo = np.array([address & (1 << 64) - 1 for address in asked], np.uint64)
    for address, found in zip(asked, prefixes.find(hi, lo).tolist(), strict=True):
        least = 96 if address >> 32 == 0xFFFF else 0
        around = [
            (-length, row)
            for row, (first, last, length) in enumerate(spans)
            if first <= address <= last and length >= least
        ]
        assert found == (min(around)[1] if around else -1)


def test_memory_is_forty_octets_a_network_at_most():
    """So that a million indicators fit in every worker."""
    texts = pa.array([f"10.{n >> 8 & 255}.{n & 255}.128/25" for n in range(1000)])
    assert Prefixes(*network_numbers(texts)).nbytes <= 40 * 1001
