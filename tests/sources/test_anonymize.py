"""Anonymisation: Crypto-PAn as its authors and others have it, prefixes kept, nothing of a host left."""

import ipaddress

import numpy as np
import pytest
from frames_testing import SRC, TUNNELS, addresses, ethernet, ipv4, ipv6, parsed, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import anonymize
from sources.anonymize import Anonymizer, read_key, refuse_payloads
from transforms.records import PACKET, InputError

AUTHORS_KEY = bytes.fromhex("1522178d33a4cf80130a5b1649907d10d8988f837979652762574c2d2a842202")

AUTHORS_SAMPLES = {
    "128.11.68.132": "135.242.180.132",
    "129.118.74.4": "134.136.186.123",
    "130.132.252.244": "133.68.164.234",
    "141.223.7.43": "141.167.8.160",
    "141.233.145.108": "141.129.237.235",
    "152.163.225.39": "151.140.114.167",
    "156.29.3.236": "147.225.12.42",
    "165.247.96.84": "162.9.99.234",
    "166.107.77.190": "160.132.178.185",
    "192.102.249.13": "252.138.62.131",
    "192.215.32.125": "252.43.47.189",
    "192.233.80.103": "252.25.108.8",
    "192.41.57.43": "252.222.221.184",
    "193.150.244.223": "253.169.52.216",
    "195.205.63.100": "255.186.223.5",
    "198.200.171.101": "249.199.68.213",
    "198.26.132.101": "249.36.123.202",
    "198.36.213.5": "249.7.21.132",
    "198.51.77.238": "249.18.186.254",
    "199.217.79.101": "248.38.184.213",
}
"""From the trace that the authors' program comes with."""

IPV6_SAMPLES = {
    "::1": "78ff:f001:9fc0:20df:8380:b1f1:704:ed",
    "::2": "78ff:f001:9fc0:20df:8380:b1f1:704:ef",
    "::ffff": "78ff:f001:9fc0:20df:8380:b1f1:704:f838",
    "2001:db8::1": "4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1e",
    "2001:db8::2": "4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1c",
}
"""With the same key, from the tests of yacryptopan."""


def rows_of(sources: list[str]) -> np.ndarray:
    packets = np.zeros(len(sources), PACKET)
    for packet, text in zip(packets, sources, strict=True):
        address = ipaddress.ip_address(text)
        number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
        packet["ip_version"] = address.version
        packet["src_hi"], packet["src_lo"] = number >> 64, number & (2**64 - 1)
    packets["dst_hi"], packets["dst_lo"] = packets["src_hi"], packets["src_lo"]
    return packets


def pseudonyms(sources: list[str], key: bytes = AUTHORS_KEY) -> list[str]:
    packets = Anonymizer(key).anonymized(rows_of(sources))
    assert (packets["src_lo"] == packets["dst_lo"]).all()
    numbers = [int(packet["src_hi"]) << 64 | int(packet["src_lo"]) for packet in packets]
    return [
        str(ipaddress.IPv4Address(number & 0xFFFFFFFF) if packet["ip_version"] == 4 else ipaddress.IPv6Address(number))
        for number, packet in zip(numbers, packets, strict=True)
    ]


def test_the_authors_samples():
    assert pseudonyms(list(AUTHORS_SAMPLES)) == list(AUTHORS_SAMPLES.values())


def test_others_samples_of_ipv6():
    assert pseudonyms(list(IPV6_SAMPLES)) == list(IPV6_SAMPLES.values())


def reference(number: int, bits: int) -> int:
    """Crypto-PAn as the paper writes it down, a bit at a time."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    cipher = Cipher(algorithms.AES(AUTHORS_KEY[:16]), modes.ECB())
    pad = cipher.encryptor().update(AUTHORS_KEY[16:])
    flips = 0
    for bit in range(bits):
        mask = (1 << 128) - (1 << (128 - bit))
        block = ((number << (128 - bits)) & mask) | (int.from_bytes(pad, "big") & ~mask)
        flips = flips << 1 | cipher.encryptor().update(block.to_bytes(16, "big"))[0] >> 7
    return number ^ flips


@settings(max_examples=30)
@given(st.lists(st.ip_addresses(), min_size=1, max_size=20))
def test_any_addresses_are_those_of_the_paper(sources):
    """Versions mixed, again and again the same, addresses within ::ffff:0:0/96 too."""
    expected = [reference(int(source), 32 if source.version == 4 else 128) for source in sources]
    found = [int(ipaddress.ip_address(text)) for text in pseudonyms([str(source) for source in sources])]
    assert found == expected


@given(st.ip_addresses(v=4), st.integers(0, 31))
def test_a_shared_prefix_is_shared_by_the_pseudonyms_and_no_more(source, bits):
    other = ipaddress.IPv4Address(int(source) ^ 1 << (31 - bits))
    first, second = (int(ipaddress.IPv4Address(text)) for text in pseudonyms([str(source), str(other)]))
    assert (first ^ second).bit_length() == 32 - bits


def test_an_ipv6_packet_from_a_mapped_address_is_ipv6():
    """::ffff:10.1.2.3 in an IPv6 header is not the host 10.1.2.3."""
    four, six = pseudonyms(["10.1.2.3", "::ffff:10.1.2.3"])
    assert int(ipaddress.IPv6Address(six)) != 0xFFFF << 32 | int(ipaddress.IPv4Address(four))


def test_outer_addresses_of_tunnels():
    """Those of a packet without tunnel stay 0."""
    frames = [ethernet(TUNNELS["vxlan"][0]), ethernet(TUNNELS["4in6"][0], 0x86DD), ethernet(ipv4(udp()))]
    packets, _, _ = parsed(frames)
    found = Anonymizer(AUTHORS_KEY).anonymized(packets)
    assert addresses(found[0], "outer_")[0] == pseudonyms([SRC])[0] == addresses(found[2])[0]
    assert addresses(found[1], "outer_")[0] == pseudonyms([addresses(packets[1], "outer_")[0]])[0]
    assert addresses(found[2], "outer_") == ("::", "::")


def test_what_is_given_stays_as_it_is_and_all_else_is_copied():
    packets, _, _ = parsed([ethernet(ipv4(udp(b"abc"))), ethernet(ipv6(udp(b"abc")), 0x86DD)])
    packets.flags.writeable = False
    found = Anonymizer(AUTHORS_KEY, "keep").anonymized(packets)
    named = {"src_hi", "src_lo", "dst_hi", "dst_lo", "payload_entropy"}
    assert all((found[name] == packets[name]).all() for name in PACKET.names if name not in named)
    assert (found["src_lo"] != packets["src_lo"]).all()


def test_more_addresses_than_the_table_holds(monkeypatch):
    """It is emptied and begins anew; memory is bounded and pseudonyms are the same."""
    monkeypatch.setattr(anonymize, "_ENTRIES", 4096)
    monkeypatch.setattr(anonymize, "_MOST_USED", 2048)
    packets = np.zeros(20_000, PACKET)
    packets["ip_version"] = 4
    packets["src_lo"] = (0xFFFF << 32) + np.random.default_rng(3).permutation(20_000).astype(np.uint64)
    packets["dst_lo"] = packets["src_lo"][::-1]
    small = Anonymizer(AUTHORS_KEY).anonymized(packets)
    monkeypatch.undo()
    large = Anonymizer(AUTHORS_KEY).anonymized(packets)
    assert (small["src_lo"] == large["src_lo"]).all()
    assert (small["dst_lo"] == large["dst_lo"]).all()
    assert len(np.unique(small["src_lo"])) == 20_000


@pytest.mark.parametrize("mode", ["zero", "hash", "keep"])
def test_mac_addresses(mode):
    """A pseudonym is locally administered; broadcast and multicast can be told from stations; none stays none."""
    packets = np.zeros(4, PACKET)
    packets["src_mac"] = 0x001122334455, 0x001122334456, 0x001122334455, 0
    packets["dst_mac"] = 0xFFFFFFFFFFFF
    found = Anonymizer(AUTHORS_KEY, mode).anonymized(packets)
    if mode == "hash":
        sources = found["src_mac"].tolist()
        assert sources[0] == sources[2] != sources[1]
        assert not set(sources) & set(packets["src_mac"].tolist()[:3])
        assert [mac >> 40 & 3 for mac in sources] == [2, 2, 2, 0]
        assert found["dst_mac"][0] >> 40 & 3 == 3
        assert (found["src_mac"] < 2**48).all()
    else:
        expected = packets["src_mac"] if mode == "keep" else np.zeros(4)
        assert (found["src_mac"] == expected).all()


def test_the_hash_of_headers_tells_equal_packets_and_nothing_else():
    """It is keyed: real headers cannot be tried out against it. 0, for none, stays 0."""
    packets = np.zeros(4, PACKET)
    packets["headers_hash"] = 5, 6, 5, 0
    found = Anonymizer(AUTHORS_KEY).anonymized(packets)["headers_hash"].tolist()
    other = Anonymizer(bytes(32)).anonymized(packets)["headers_hash"].tolist()
    assert found[0] == found[2] != found[1]
    assert found[3] == 0
    assert not {*found[:3]} & {5, 6, *other[:3]}


def test_payloads_are_refused():
    packets = np.zeros(1, PACKET)
    packets["payload_captured"] = 1
    with pytest.raises(ValueError, match="payload"):
        Anonymizer(AUTHORS_KEY).anonymized(packets)
    with pytest.raises(InputError, match="--payload_octets"):
        refuse_payloads(8)
    refuse_payloads(0)


def test_no_packets():
    assert len(Anonymizer(AUTHORS_KEY).anonymized(np.zeros(0, PACKET))) == 0


@pytest.mark.parametrize("text", [AUTHORS_KEY, AUTHORS_KEY.hex().encode(), AUTHORS_KEY.hex().upper().encode() + b"\n"])
def test_a_key_is_octets_or_digits(tmp_path, text):
    (tmp_path / "key").write_bytes(text)
    assert read_key(str(tmp_path / "key")) == AUTHORS_KEY


@pytest.mark.parametrize("text", [b"", b"secret\n", b"ab" * 31, b"zz" * 32, bytes(33), bytes(2000)])
def test_a_wrong_key_is_one_line(tmp_path, text):
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(InputError, match=r"key is no key: it has to hold 32 octets.*openssl rand -hex 32"):
        read_key(str(tmp_path / "key"))


def test_a_key_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="nokey cannot be read: No such file"):
        read_key(str(tmp_path / "nokey"))


def test_an_unknown_mode_is_one_line():
    with pytest.raises(InputError, match="--anonymize_macs: unknown mode 'blur'; choose of zero, hash, keep"):
        Anonymizer(AUTHORS_KEY, "blur")


def test_a_missing_library_names_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(InputError, match=r"pip install 'flowbeam\[sensor\]'"):
        Anonymizer(AUTHORS_KEY)
