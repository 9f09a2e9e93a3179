"""What a feed makes of a topic from which nothing comes: how long it waits, and for what."""

import threading
from types import SimpleNamespace

import pytest

from queues import kafka_feed
from queues.kafka_client import topic_of
from queues.kafka_feed import PATIENCE_S, PartitionFeed
from transforms.records import InputError


@pytest.fixture
def clock(monkeypatch):
    """The time, in seconds."""
    now = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(kafka_feed, "time", SimpleNamespace(monotonic=lambda: now.now_s))
    return now


@pytest.fixture
def feed(clock, monkeypatch):
    """A feed that has worked, and that no broker answers now; the test is its thread."""
    monkeypatch.setattr(PartitionFeed, "_run", lambda _: None)
    monkeypatch.setattr(PartitionFeed, "_ends", lambda _: None)
    one = PartitionFeed(topic_of("//127.0.0.1:9/t"), 0, 0, threading.Condition())
    one._is_well()
    yield one
    one._is_well()
    one._consumer.close()


def look(feed, clock, after_s: float, lasting: bool) -> None:
    """The thread looks after its partition, a while later."""
    clock.now_s += after_s
    feed._troubles.line, feed._troubles.lasting = "no such topic" if lasting else "no broker answers", lasting
    feed._look_after()


def test_a_broker_that_is_away_is_waited_for_and_patience_begins_afterwards(feed, clock, caplog):
    """A broker that comes back after an hour may know of no topics for a moment."""
    for _ in range(3):
        look(feed, clock, 3600, lasting=False)
    look(feed, clock, 1, lasting=True)
    look(feed, clock, PATIENCE_S - 5, lasting=True)
    assert feed.take(1) == []
    assert caplog.messages == ["no broker answers; waiting"]
    look(feed, clock, 10, lasting=True)
    with pytest.raises(InputError, match="no such topic"):
        feed.take(1)


def test_a_topic_that_is_missing_is_waited_for_as_long_as_patience_lasts(feed, clock):
    look(feed, clock, 3600, lasting=True)
    look(feed, clock, PATIENCE_S - 1, lasting=True)
    assert feed.take(1) == []
    look(feed, clock, 2, lasting=True)
    with pytest.raises(InputError, match="no such topic"):
        feed.take(1)
