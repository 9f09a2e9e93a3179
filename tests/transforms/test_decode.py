"""Decoding on Beam: every payload ends in exactly one of two outputs, and is counted."""

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from flow_testing import START_NS, packets

from transforms import avro
from transforms.decode import DecodePackets, timestamp_of
from transforms.records import Delivery, Gap, PacketBatch, Stream


def batch(sequence, at_s):
    made = packets(at_s=at_s)
    return PacketBatch(Stream("local"), sequence, START_NS + 9_999, made)


@pytest.mark.parametrize(("at_s", "expected_us"), [([3, 1], 3_000_000), ([], 9)], ids=["first-packet", "heartbeat"])
def test_event_time(at_s, expected_us):
    """A block is at the time of its first packet, a heartbeat at the time observed; both cut to microseconds."""
    assert timestamp_of(batch(0, at_s)).micros == START_NS // 1000 + expected_us


def test_each_payload_is_decoded_or_rejected():
    """Blocks become batches, repeated ones too; all else becomes rejects with the payload itself."""
    good, heartbeat = avro.encode_block(batch(0, [0, 1])), avro.encode_block(batch(1, []))
    payloads = [good, b"junk", heartbeat, good[:-1], good]
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([]))
    gap = Gap(Stream("local"), 1, 0, 7, "lost")
    deliveries = [Delivery(octets, "topic", number, 99, 5) for number, octets in enumerate(payloads)]
    deliveries[1] = deliveries[1]._replace(gaps=(gap,))
    decoded = pipeline | beam.Create(deliveries) | DecodePackets()
    seen = decoded.arrivals | "Seen" >> beam.Map(
        lambda one, at=beam.DoFn.TimestampParam: (
            (len(one.batch.packets), at.micros) if one.batch else one.gaps, one.received_ns, one.follows
        )
    )  # fmt: skip
    start_us = START_NS // 1000
    found = [(2, start_us), (2, start_us), (0, start_us + 9), (gap,)]
    assert_that(seen, equal_to([(one, 99, 5) for one in found]), label="Packets")
    rejects = decoded.rejects | "Told" >> beam.Map(lambda one: (*one[:2], one.source, one.position, one.payload))
    expected = [
        ("decode", "not a single-object Avro message", "topic", 1, b"junk"),
        ("decode", "damaged block", "topic", 3, good[:-1]),
    ]
    assert_that(rejects, equal_to(expected), label="Rejects")
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("decode"))["counters"]
    assert {metric.key.metric.name: metric.committed for metric in counters} == {
        "blocks_decoded": 3,
        "packets_decoded": 4,
        "blocks_undecodable": 2,
    }
