"""An output that is slow beside others: nothing is lost, little waits in memory, and the others go on."""

import block_testing
from block_testing import Store, write_to
from sink_testing import flows, schema_of

from sinks import blocks
from sinks.outputs import SinkContext


def test_a_slow_store_holds_few_blocks_and_nobody_up():
    """Ten times slower than another one of the job: what waits in memory is bounded, and the other has everything."""
    context = SinkContext(("cic@1",), schema_of(), "slow")
    block_testing.STORES["slow"] = store = Store()
    block_testing.STORES["fast"] = other = Store()
    store.delay_s, other.delay_s = 0.05, 0.005
    steps = [blocks._WriteBlocks(write_to(path, context, block_rows=1, threads=2)) for path in ("slow", "fast")]
    slow, fast = steps
    for step in steps:
        step.setup()
        step.start_bundle()
    for number in range(20):
        for step in steps:
            list(step.process(flows([number])))
        assert number + 1 - len(store.records) <= 2
    list(fast.finish_bundle())
    assert len(other.records) == 20
    list(slow.finish_bundle())
    assert len(store.records) == 20
    assert sorted(store.writes) == sorted(other.writes) == [1] * 20
    for step in steps:
        step.teardown()
    for path in ("slow", "fast"):
        del block_testing.STORES[path]
