"""Addresses and networks from text, against Python's `ipaddress`."""

import ipaddress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.enrich.address_numbers import HOST_BITS, NO_NETWORK, is_ipv4, network_numbers

MAPPED = 0xFFFF << 32


def by_ipaddress(text: str) -> tuple[int, int]:
    """Number and length; the length tells what is wrong."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return 0, NO_NETWORK
    address = int(ipaddress.ip_interface(text).ip) | (MAPPED if network.version == 4 else 0)
    length = network.prefixlen + (96 if network.version == 4 else 0)
    return address, HOST_BITS if ipaddress.ip_interface(text).ip != network.network_address else length


def numbers(texts: list[str | None]) -> list[tuple[int, int]]:
    hi, lo, length = network_numbers(pa.array(texts, pa.string()))
    return [(int(high) << 64 | int(low), int(bits)) for high, low, bits in zip(hi, lo, length, strict=True)]


addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}"),
    st.ip_addresses(v=4).map(lambda address: f"64:ff9b::{address}"),
    st.from_regex(r"[0-9a-f]{0,3}(::?[0-9a-f]{0,2}){0,8}", fullmatch=True),
)
networks = st.builds("{}/{}".format, addresses, st.integers(0, 130))


@given(st.lists(addresses | networks | st.text("0123456789abcdf:./ ", max_size=12), min_size=1, max_size=30))
@settings(max_examples=50)
def test_texts_are_read_as_ipaddress_reads_them(texts):
    """Address and length of what is an address or network, and which texts are none."""
    texts = [text for text in texts if not any(part in text for part in ("/ ", "/255.", "/0."))]
    texts = [text for text in texts if "." not in text.partition("/")[2]]  # netmasks: we take lengths alone
    assert [bits for _, bits in numbers(texts)] == [by_ipaddress(text)[1] for text in texts]
    read = [pair for pair in numbers(texts) if pair[1] != NO_NETWORK]
    assert read == [pair for pair in map(by_ipaddress, texts) if pair[1] != NO_NETWORK]


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "1..3.4", ":", ":::", "1::2::3",
        "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "12345::", "::g", "::1.2.3", "1:2:3:4:5:6:7:1.2.3.4",
        "fe80::1%eth0", "1.2.3.4/", "1.2.3.4/33", "::/129", "::/+1", "::/0000", "evil.example", ":1", "1:",
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_so(text):
    assert numbers([text])[0][1] == NO_NETWORK


def test_nulls_and_slices_of_columns():
    """A column may begin anywhere in its memory."""
    texts = pa.array(["1.2.3.4", None, "::1", "2001:db8::/32"], pa.string())
    hi, lo, length = network_numbers(texts[1:])
    assert length.tolist() == [NO_NETWORK, 128, 32]
    assert (hi.tolist(), lo.tolist()) == ([0, 0, 0x20010DB8 << 32], [0, 1, 0])
    assert len(network_numbers(texts[:0]).hi) == 0


def test_which_are_ipv4():
    hi, lo, _ = network_numbers(pa.array(["1.2.3.4", "::1.2.3.4", "::ffff:1.2.3.4", "2001:db8::ffff:102:304"]))
    assert is_ipv4(hi, lo).tolist() == [True, False, True, False]
    assert lo.dtype == np.uint64
