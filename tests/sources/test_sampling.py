"""Sampling: whole flows, the same ones everywhere, as many as were asked for."""

import numpy as np
import pytest
from frames_testing import DST, ethernet, ipv4, parsed, tcp, udp
from hypothesis import given
from hypothesis import strategies as st

from sources.rows import Rows
from sources.sampling import parse_share, sampled
from transforms.identity import shard_hash
from transforms.records import PACKET, InputError


def random_packets(count: int) -> np.ndarray:
    packets = np.zeros(count, PACKET)
    random = np.random.default_rng(7)
    packets["src_lo"] = 0xFFFF << 32 | random.integers(0, 2**32, count, np.uint64)
    packets["dst_lo"] = 0xFFFF << 32 | random.integers(0, 2**32, count, np.uint64)
    packets["src_port"], packets["dst_port"] = random.integers(0, 2**16, (2, count))
    packets["protocol"], packets["ip_version"] = 6, 4
    return packets


def kept(packets: np.ndarray, one_of: int) -> np.ndarray:
    return sampled(Rows(packets, np.empty(0, np.uint8)), one_of).packets


def test_what_is_kept_is_fixed():
    """Sensors and releases agree: these flows of SRC and DST are kept."""
    packets, _, _ = parsed([ethernet(ipv4(udp(src_port=port, dst_port=53))) for port in range(1, 200)])
    assert kept(packets, 16)["src_port"].tolist() == [19, 39, 62, 65, 113, 114, 139, 149, 185, 195]


def test_both_directions_are_kept_or_neither():
    there = [ethernet(ipv4(tcp(), 6, f"10.0.{i // 256}.{i % 256}", DST)) for i in range(500)]
    packets, _, _ = parsed(there)
    back = packets.copy()
    for name in ("{}_hi", "{}_lo", "{}_port"):
        back[name.format("src")], back[name.format("dst")] = packets[name.format("dst")], packets[name.format("src")]
    assert 0 < len(kept(packets, 4)) < 500
    assert kept(packets, 4)["src_lo"].tolist() == kept(back, 4)["dst_lo"].tolist()


@pytest.mark.parametrize("one_of", [2, 10, 64])
def test_as_many_flows_as_were_asked_for(one_of):
    """Within five standard deviations; and no shard or partition is left out."""
    packets = random_packets(100_000)
    chosen = kept(packets, one_of)
    share = 1 / one_of
    assert abs(len(chosen) - 100_000 * share) < 5 * np.sqrt(100_000 * share * (1 - share))
    shards = np.bincount((shard_hash(chosen) % np.uint64(8)).astype(int), minlength=8)
    assert shards.min() > 0.7 * len(chosen) / 8


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 4), st.integers(0, 5))
def test_payload_prefixes_stay_with_their_packets(lengths, one_of, offset):
    """Also where the rows given do not begin at the first octet; what is given stays as it is."""
    frames = [ethernet(ipv4(udp(bytes([i]) * length, src_port=i))) for i, length in enumerate(lengths)]
    packets, _, payloads = parsed(frames, payload_octets=10)
    packets["payload_at"] += offset
    before = packets.tobytes()
    rows = sampled(Rows(packets, np.frombuffer(payloads, np.uint8)), one_of)
    assert packets.tobytes() == before
    origin = rows.packets["payload_at"][0] if len(rows.packets) else 0
    for packet in rows.packets:
        start = packet["payload_at"] - origin
        prefix = rows.payloads[start : start + packet["payload_captured"]].tolist()
        assert prefix == [packet["src_port"]] * min(10, lengths[packet["src_port"]])
    assert len(rows.payloads) == rows.packets["payload_captured"].sum()


def test_a_share_of_all_is_all():
    packets = random_packets(10)
    assert kept(packets, 1) is packets


@pytest.mark.parametrize(("text", "one_of"), [("1/1", 1), ("1/16", 16), ("1/1000", 1000)])
def test_a_share_is_read(text, one_of):
    assert parse_share(text) == one_of


@pytest.mark.parametrize("text", ["", "16", "2/16", "1/0", "1/-4", "1/x", "1/16 ", "0.1"])
def test_a_wrong_share_is_one_line(text):
    with pytest.raises(InputError, match=r"^--sample: .* 1/16$"):
        parse_share(text)
