import threading

import pytest
from sink_testing import flows

from sinks import background
from sinks.background import Background


def test_batches_arrive_in_order_and_the_result_comes_back():
    given = [flows([number]) for number in range(20)]
    thread = Background(list)
    for batch in given:
        thread.put(batch)
    assert thread.finish() == given


def test_the_pipeline_waits_when_too_much_is_under_way(monkeypatch):
    """Memory is bounded: with one batch being written and one waiting, the next put blocks until there is room."""
    monkeypatch.setattr(background, "WAITING_OCTETS", 1)
    go, taken = threading.Event(), []

    def consume(batches):
        for batch in batches:
            go.wait(10)
            taken.append(batch)

    thread = Background(consume)
    third = threading.Thread(target=lambda: [thread.put(flows([number])) for number in range(3)])
    third.start()
    third.join(0.1)
    assert third.is_alive()
    go.set()
    third.join(10)
    assert not third.is_alive()
    thread.finish()
    assert len(taken) == 3


def test_an_error_is_raised_where_the_batches_come_from(monkeypatch):
    monkeypatch.setattr(background, "WAITING_OCTETS", 1)

    def consume(batches):
        next(batches)
        raise OSError("broken")

    thread = Background(consume)
    with pytest.raises(OSError, match="broken"):
        any(thread.put(flows([number])) for number in range(100))
    with pytest.raises(OSError, match="broken"):
        thread.finish()
    thread.abandon()


def test_abandoned_work_ends():
    seen = []

    def consume(batches):
        try:
            list(batches)
        except InterruptedError as error:
            seen.append(error)
            raise

    Background(consume).abandon()
    assert len(seen) == 1
