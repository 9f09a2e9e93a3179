"""A pull and its leases, without a server: what is acknowledged when, and what is kept until then."""

import threading

from flow_testing import packets
from google.pubsub_v1 import StreamingPullResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_testing import until

from queues import pubsub_client
from sources.streaming import pubsub_pull
from transforms import avro
from transforms.records import PacketBatch, Stream


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["message", "bundle", "checkpoint", "complete", "crash"]), max_size=40))
def test_only_committed_bundles_are_acknowledged(events):
    """On a runner that finalizes all finished bundles when a checkpoint completes, as Flink does."""
    commits = pubsub_pull.Commits()
    commits.begin()
    given_in, acknowledged = {}, set()
    committed = 0  # the last bundle that the last completed checkpoint knows
    checkpoint = None
    outstanding, lost = [], set()
    for number, event in enumerate(events):
        if event == "message":
            commits.give(f"{number}")
            given_in[f"{number}"] = commits.bundle
        elif event == "bundle":
            outstanding.append(commits.bundle)
            commits.begin()
        elif event == "checkpoint" and checkpoint is None:
            checkpoint = commits.bundle - 1
        elif event == "complete" and checkpoint is not None:
            committed, checkpoint = checkpoint, None
            for bundle in outstanding:
                acknowledged |= set(commits.finalized(bundle))
            outstanding = []
        elif event == "crash":
            lost |= set(commits.lost_after(committed))
            outstanding, checkpoint = [], None
            commits.begin()
        assert all(given_in[lease] <= committed for lease in acknowledged)
    assert not acknowledged & lost
    assert set(commits.leases) == given_in.keys() - acknowledged - lost


def test_everything_is_acknowledged_in_the_end():
    """Two rounds of finalized bundles after the last message at most."""
    commits = pubsub_pull.Commits()
    commits.begin()
    commits.give("lease")
    assert commits.finalized(1) == []
    commits.begin()
    assert commits.finalized(2) == ["lease"]
    assert commits.uncommitted == 0


class Service:
    """Delivers one message, and keeps what is said of its lease."""

    def __init__(self):
        self.transport = self
        self.said = []
        self.cancelled = threading.Event()

    def streaming_pull(self, requests, metadata):
        assert next(requests).stream_ack_deadline_seconds == 1
        return self

    def __iter__(self):
        message = {"data": avro.encode_block(PacketBatch(Stream("a"), 0, 0, packets(at_s=[0]))), "message_id": "5"}
        yield StreamingPullResponse(received_messages=[{"ack_id": "lease", "message": message}])
        assert self.cancelled.wait(60)

    def modify_ack_deadline(self, request, **_):
        self.said.append((request["ack_deadline_seconds"], *request["ack_ids"]))

    def acknowledge(self, request, **_):
        self.said.append(("acknowledged", *request["ack_ids"]))

    def cancel(self):
        self.cancelled.set()

    close = cancel


def test_leases_are_extended_until_they_are_acknowledged(monkeypatch):
    """However long the commit takes; and not after it."""
    service = Service()
    monkeypatch.setattr(pubsub_pull, "client_of", lambda _: service)
    pull = pubsub_pull.Pull(pubsub_client.place_of("subscription", "//a-project/reader", ()), 1)
    bundle = pull.begin("", 0)
    (message,) = pull.take(20)
    assert message.position == 5
    pull.give(message)
    until(lambda: service.said.count((1, "lease")) >= 3)
    pull.finalized(bundle)
    assert pull.uncommitted == 1
    pull.finalized(pull.begin(pull.token, bundle))
    until(lambda: not pull.uncommitted)
    pull.close()
    pull.join(20)
    assert set(service.said[:-1]) == {(1, "lease")}
    assert service.said[-1] == ("acknowledged", "lease")
