"""What holds reading back where a runner does not."""

import threading
import uuid

from apache_beam.utils.timestamp import Timestamp
from flow_testing import packets
from table_testing import batch

from transforms import flow_control
from transforms.shard import _SplitFn


def test_a_bundle_waits_until_shards_have_taken_what_is_underway():
    """It begins when no more than the limit is left, and not before."""
    job = uuid.uuid4().hex
    first = _SplitFn(2, False, job, in_flight_octets=100)
    first.start_bundle()
    list(first.process(batch(packets([0] * 50)), Timestamp(0)))
    sizes = [len(part.value[1]) for part in first.finish_bundle()]
    begun = threading.Event()

    def begin() -> None:
        _SplitFn(2, False, job, in_flight_octets=100).start_bundle()
        begun.set()

    thread = threading.Thread(target=begin)
    thread.start()
    assert not begun.wait(0.2)
    for size in sizes:
        flow_control.taken(job, size)
    assert begun.wait(5)
    thread.join()


def test_nothing_waits_for_ever():
    """Whatever became of what was underway, after a while the next bundle begins."""
    job = uuid.uuid4().hex
    flow_control.sent(job, 1000)
    assert flow_control.wait(job, 100, most_s=0.05) >= 0.05
    flow_control.taken(job, 5000)
    assert flow_control.wait(job, 0, most_s=5) < 1
