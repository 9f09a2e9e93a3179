"""Blocks of a sensor: nothing lost, nothing twice, whatever the chunks, the partitions and the limits."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from flow_testing import START_NS, packets
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.anonymize import Anonymizer
from sources.blocks import HEAD_OCTETS_MOST, BlockMaker, BlockSettings
from sources.live import Chunk
from transforms import avro
from transforms.identity import shard_hash
from transforms.records import FRAGMENT_FIRST, FRAGMENT_LATER, NO_TIME, UDP, InputError, SensorHealth

NO_PAYLOAD = np.zeros(0, np.uint8)


def chunk(made, observed_ns=None, rejects=None, dropped=0, prefix=0):
    """A chunk of packets; each carries `prefix` octets that tell its source port."""
    made["payload_captured"] = prefix
    made["payload_at"] = np.arange(len(made)) * prefix
    payloads = np.repeat(made["src_port"].astype(np.uint8), prefix)
    if observed_ns is None:
        observed_ns = int(made["time_ns"].max(initial=NO_TIME))
    return Chunk(made, payloads, observed_ns, rejects or {}, dropped)


def many(count, first=0, **columns):
    """Packets of as many flows, one a millisecond."""
    ports = (first + np.arange(count)) % 200 + 1
    return packets(at_s=[(first + i) / 1000 for i in range(count)], src_port=ports, **columns)


def quiet(at_s, **details):
    return chunk(packets(at_s=[]), START_NS + round(at_s * 1e9), **details)


@st.composite
def chunks(draw):
    """What an input may give: any sizes, times out of order, counts now and then."""
    made, first = [], 0
    for size in draw(st.lists(st.integers(0, 30), max_size=6)):
        rows = many(size, first)
        rows["time_ns"] += np.array(draw(st.lists(st.integers(0, 20_000_000), min_size=size, max_size=size)), "i8")
        observed_ns = START_NS + (first + size) * 1_000_000 - 1
        rejects = draw(st.dictionaries(st.sampled_from(["malformed", "not_ip"]), st.integers(1, 3), max_size=2))
        made.append(chunk(rows, observed_ns, rejects, draw(st.integers(0, 2)), prefix=draw(st.sampled_from([0, 3]))))
        first += size
    return made


def copied(one):
    return one._replace(packets=one.packets.copy())


@given(chunks(), st.integers(1, 4), st.integers(1, 20), st.sampled_from([None, 0.5, 1.5]), st.integers(0, 5))
@settings(max_examples=40)
def test_any_chunks_give_all_packets_once_in_order(given, partitions, most, age_s, beat_at):
    """Each partition has its packets in the order of their capture; numbers follow one another; counts add up."""
    maker = BlockMaker("tap", 7, partitions, BlockSettings(most, max_age_s=age_s))
    blocks = []
    for second, one in enumerate(given):
        blocks += maker.add(copied(one), float(second))
        if second == beat_at:
            blocks += maker.heartbeat(SensorHealth(1.0))
    blocks += maker.end()
    streams = defaultdict(list)
    for block in blocks:
        assert avro.decode_header(avro.encode_block(block)).sequence == block.sequence
        streams[block.stream.partition].append(block)
    assert sorted(streams) == list(range(partitions))
    everything = np.concatenate([one.packets for one in [*given, quiet(0)]])
    texts = [
        bytes(one.payloads[at : at + n]) for one in given for at, n in one.packets[["payload_at", "payload_captured"]]
    ]
    where = shard_hash(everything) % np.uint64(partitions)
    for partition, stream in streams.items():
        assert [block.sequence for block in stream] == list(range(len(stream)))
        assert [block.end for block in stream] == [False] * (len(stream) - 1) + [True]
        assert all(len(block.packets) <= most for block in stream)
        found = np.concatenate([block.packets for block in stream])
        assert found["time_ns"].tolist() == everything["time_ns"][where == partition].tolist()
        assert found["src_port"].tolist() == everything["src_port"][where == partition].tolist()
        prefixes = [
            block.payloads[at : at + n]
            for block in stream
            for at, n in block.packets[["payload_at", "payload_captured"]]
        ]
        assert prefixes == [text for text, here in zip(texts, where == partition, strict=True) if here]
    told = sum((Counter(dict(block.rejects)) for block in blocks), Counter())
    assert told == sum((Counter(one.rejects) for one in given), Counter())
    assert sum(block.dropped for block in blocks) == sum(one.dropped for one in given)
    assert all(not block.rejects and not block.dropped for block in blocks if block.stream.partition)


@given(chunks(), st.integers(1, 3), st.integers(1, 20), st.sampled_from([None, 1.5]))
@settings(max_examples=40)
def test_observed_times_are_true(given, partitions, most, age_s):
    """What comes in later blocks of a stream is not before what a block said was there, if the input said the truth."""
    maker = BlockMaker("tap", 7, partitions, BlockSettings(most, max_age_s=age_s))
    streams = defaultdict(list)
    for second, one in enumerate(given):
        least_later = min(
            (int(later.packets["time_ns"].min(initial=2**62)) for later in given[second + 1 :]), default=0
        )
        truthful = copied(one)._replace(observed_ns=min(one.observed_ns, least_later))
        for block in [*maker.add(truthful, float(second)), *maker.heartbeat(None)]:
            streams[block.stream].append(block)
    for stream in streams.values():
        observed = [block.observed_ns for block in stream]
        assert observed == sorted(observed)
        for i, block in enumerate(stream):
            later = np.concatenate([packets([]), *(other.packets for other in stream[i + 1 :])])
            assert later["time_ns"].min(initial=2**62) >= block.observed_ns


def test_a_block_leaves_when_its_first_packet_has_waited_long_enough():
    """Also where nothing more comes; so a quiet line's packets are not kept back."""
    maker = BlockMaker("tap", 7, 1, BlockSettings(max_age_s=0.2))
    assert list(maker.add(chunk(many(3)), 10.0)) == []
    assert maker.due_in(10.05) == pytest.approx(0.15)
    assert list(maker.add(quiet(0.1), 10.1)) == []
    (block,) = maker.add(quiet(0.2), 10.25)
    assert (len(block.packets), block.observed_ns) == (3, START_NS + 200_000_000)
    assert maker.due_in(10.25) == float("inf")


def test_heartbeats_reach_every_partition():
    """Each with the time up to which all is there, after the packets that were waiting."""
    maker = BlockMaker("tap", 7, 3, BlockSettings())
    assert list(maker.heartbeat(SensorHealth())) == []
    list(maker.add(chunk(many(1), START_NS + 5), 0.0))
    blocks = list(maker.heartbeat(SensorHealth(12.5)))
    assert [len(block.packets) for block in blocks if block.health is None] == [1]
    beats = [block for block in blocks if block.health is not None]
    assert [block.stream.partition for block in beats] == [0, 1, 2]
    assert {(block.observed_ns, block.health, block.partitions) for block in beats} == {
        (START_NS + 5, SensorHealth(12.5), 3)
    }


def test_the_end_carries_the_largest_packet_time():
    """In every partition, however far time was observed; a stream without packets ends too."""
    maker = BlockMaker("tap", 7, 2, BlockSettings())
    list(maker.add(chunk(packets(at_s=[5, 9, 8], src_port=[1, 2, 3])), 0.0))
    list(maker.add(quiet(60), 0.1))
    ends = [block for block in maker.end() if block.end]
    assert [block.observed_ns for block in ends] == [START_NS + 9 * 10**9] * 2


def test_a_lost_block_is_told_as_dropped_packets():
    """With what it would have told itself."""
    maker = BlockMaker("tap", 7, 1, BlockSettings(4))
    (lost,) = maker.add(chunk(many(4), rejects={"not_ip": 2}, dropped=3), 0.0)
    maker.was_lost(lost)
    (block,) = maker.end()
    assert (block.sequence, block.dropped, block.rejects) == (1, 7, (("not_ip", 2),))


def test_blocks_stay_below_the_limit_of_the_queue():
    """Whatever payload is carried; a packet that is too large for any block has one of its own."""
    limit = 2 * HEAD_OCTETS_MOST + 20_000
    maker = BlockMaker("tap", 7, 2, BlockSettings(4096, limit))
    made = many(300)
    made["payload_captured"] = np.arange(300) * 40
    made["payload_at"] = np.cumsum(made["payload_captured"]) - made["payload_captured"]
    payloads = np.zeros(int(made["payload_captured"].sum()), np.uint8)
    blocks = [*maker.add(Chunk(made, payloads, START_NS, {}, 0), 0.0), *maker.end()]
    assert sum(len(block.packets) for block in blocks) == 300
    assert len(blocks) > 50
    assert max(len(avro.encode_block(block)) for block in blocks) <= limit
    without = BlockMaker("tap", 7, 1, BlockSettings(4096, limit))
    assert max(len(avro.encode_block(block)) for block in without.add(chunk(many(1000)), 0.0)) <= limit


def test_fragments_go_where_their_flow_goes():
    """They have the ports of their first before packets are split."""
    made = packets(at_s=[0, 0.1], protocol=UDP, fragment_id=5, fragment=[FRAGMENT_FIRST, FRAGMENT_LATER])
    made["src_port"][1] = made["dst_port"][1] = 0
    maker = BlockMaker("tap", 7, 16, BlockSettings())
    list(maker.add(chunk(made), 0.0))
    assert [len(block.packets) for block in maker.end() if len(block.packets)] == [2]


def test_sampling_and_pseudonyms_come_before_the_split():
    """Packets of other flows are rejects; the partition follows from the addresses that are carried."""
    maker = BlockMaker("tap", 7, 4, BlockSettings(), one_of=3, anonymizer=Anonymizer(bytes(range(32))))
    list(maker.add(chunk(many(200)), 0.0))
    blocks = list(maker.end())
    kept = sum(len(block.packets) for block in blocks)
    assert 20 < kept < 120
    assert sum((Counter(dict(block.rejects)) for block in blocks), Counter()) == {"sampled_out": 200 - kept}
    for block in blocks:
        assert set((shard_hash(block.packets) % np.uint64(4)).tolist()) <= {block.stream.partition}
        assert not np.isin(block.packets["src_lo"], many(1)["src_lo"]).any()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"packets": 0}, "--block_packets: 0"),
        ({"octets": 100}, "--block_octets: 100"),
        ({"max_age_s": 0}, "--block_max_age_ms: 0"),
        ({"max_age_s": float("nan")}, "--block_max_age_ms: nan"),
    ],
)
def test_limits_that_make_no_sense_are_named(setting, complaint):
    with pytest.raises(InputError, match=complaint):
        BlockSettings(**setting)
