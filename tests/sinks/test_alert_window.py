"""Alerts once in a window."""

import alert_testing
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.alert_window import KEPT_WINDOWS, unseen

MINUTE_NS = 60_000_000_000


def numbers(found):
    """The flows' numbers: they start a second apart."""
    starts = found["flow_start_ns"].to_pylist()
    return [(start - alert_testing.sink_testing.START_NS) // 1_000_000_000 for start in starts]


def test_one_alert_of_a_source_and_class_passes():
    """In its window; another source, class or window has its own."""
    found = alert_testing.scored(
        [0, 1, 59, 60, 2, 3, 4],
        src_ip=["10.0.0.1"] * 4 + ["10.0.0.2", "10.0.0.1", None],
        predicted_class=["scan"] * 5 + ["flood", "scan"],
    )
    first, memory = unseen(found, MINUTE_NS, b"")
    assert numbers(first) == [0, 60, 2, 3, 4]
    again, same = unseen(found, MINUTE_NS, memory)
    assert (len(again), same) == (0, memory)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 150), st.sampled_from("ab")), min_size=1, max_size=30), st.data())
def test_batches_make_no_difference(seen, data):
    """Which windows pass does not depend on how alerts come."""
    order = data.draw(st.permutations(seen))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=3)))
    memory, passed = b"", []
    for begin, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
        if begin < end:
            part = order[begin:end]
            found = alert_testing.scored([number for number, _ in part], src_ip=[source for _, source in part])
            first, memory = unseen(found, MINUTE_NS, memory)
            passed += zip(first["src_ip"].to_pylist(), (number // 60 for number in numbers(first)), strict=True)
    assert sorted(passed) == sorted({(source, number // 60) for number, source in seen})


def test_memory_is_of_recent_windows():
    memory, sizes = b"", []
    for minute in range(6):
        found = alert_testing.scored([60 * minute] * 2, src_ip=["a", "b"])
        _, memory = unseen(found, MINUTE_NS, memory)
        sizes.append(len(memory) // 24)
    assert sizes == [2, 4, 6, 6, 6, 6]
    assert max(sizes) == 2 * KEPT_WINDOWS


def test_rows_are_taken_as_they_are():
    found = alert_testing.scored([0, 1])
    assert unseen(found, MINUTE_NS, b"")[0].equals(found.slice(0, 1))
    assert isinstance(found, pa.RecordBatch)
