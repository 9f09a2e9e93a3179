"""A StreamingPull that outlives bundles: what was pulled, what it leases, and when that may be acknowledged.

A message may be acknowledged once the runner has committed the bundle that delivered it. Runners tell by finalizing
bundles, but Flink finalizes all that are finished when a checkpoint completes, also those that came after it was taken,
in any order. So a bundle counts as committed when another one has been finalized that began after its own finalization:
the checkpoint which that stands for was taken later. Until then leases are extended.
"""

import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from queues.pubsub_client import CALL_S, Place, client_of, trouble_of
from transforms.records import InputError

HELD_OCTETS_MOST = 32 << 20
"""Pulled, and not delivered yet; with more, nothing more is taken from the stream."""

LEFT_S = 120.0
"""A reader that nobody calls for so long gives its messages back: the runner reads elsewhere."""

SILENT_S = 60.0
"""A runner that tells of no commit for so long is one warning."""

REFUSED_S = 60.0
"""What Pub/Sub refuses for so long is an error."""

_OUTSTANDING_OCTETS, _OUTSTANDING_MESSAGES = 1 << 30, 100_000
_IDS_OF_A_CALL = 1_000
_ALIVE_S, _ASK_S, _COMMIT_S = 30.0, 0.25, 0.1
_AGAIN_S, _AGAIN_MOST_S = 0.1, 5.0

_log = logging.getLogger(__name__)


class Pulled(NamedTuple):
    """A message.

    Attributes:
        octets: The block.
        position: Its number, if it has one.
        published_ns: When Pub/Sub received it.
        lease: Under which it was delivered to this reader.
    """

    octets: bytes
    position: int
    published_ns: int
    lease: str


class Commits:
    """Which leases belong to committed bundles.

    Attributes:
        bundle: Number of the last bundle that has begun.
        heard: A bundle was finalized since that was last asked for.
    """

    def __init__(self) -> None:
        self.bundle = 0
        self.heard = False
        self._given: deque[tuple[int, str]] = deque()
        self._awaited: list[tuple[int, int]] = []

    def begin(self) -> None:
        """A bundle begins."""
        self.bundle += 1

    def give(self, lease: str) -> None:
        """A message is delivered in it."""
        self._given.append((self.bundle, lease))

    def finalized(self, bundle: int) -> list[str]:
        """A bundle was finalized; the leases of those that are committed now."""
        self.heard = True
        upto = max((one for one, later in self._awaited if later <= bundle), default=-1)
        self._awaited = [(one, later) for one, later in self._awaited if one > upto]
        self._awaited.append((bundle, self.bundle + 1))
        return self._take(lambda one: one <= upto)

    def lost_after(self, bundle: int) -> list[str]:
        """The bundles after this one were undone; their leases."""
        self._awaited = [(one, later) for one, later in self._awaited if one <= bundle]
        return self._take(lambda one: one > bundle)

    @property
    def leases(self) -> list[str]:
        """Those that are not committed."""
        return [lease for _, lease in self._given]

    @property
    def uncommitted(self) -> int:
        """How many they are."""
        return len(self._given)

    def _take(self, chosen: Callable[[int], bool]) -> list[str]:
        taken = [lease for bundle, lease in self._given if chosen(bundle)]
        self._given = deque(one for one in self._given if not chosen(one[0]))
        return taken


class Pull:
    """Pulls from a subscription in threads of its own, until it is closed or left alone.

    Args:
        subscription: Where from.
        deadline_s: A lease lasts so long without extension.

    Attributes:
        token: Tells it from all others.
        closed: It pulls no more, and has given back what was not committed.
    """

    def __init__(self, subscription: Place, deadline_s: int) -> None:
        self.token = secrets.token_hex(8)
        self.closed = False
        self._subscription, self._deadline_s = subscription, deadline_s
        self._client = client_of(subscription)
        self._changed = threading.Condition()
        self._arrived: deque[Pulled] = deque()
        self._octets = 0
        self._commits = Commits()
        self._acknowledged: list[str] = []
        self._returned: list[str] = []
        self._error: Exception | None = None
        self._call: Any = None
        self._streams = 0
        self._used_s = self._arrived_s = self._heard_s = time.monotonic()
        self._asked_s = 0.0
        self._told = False
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name="pubsub", daemon=True)
            for work in (self._pull, self._keep)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, token: str, bundle: int) -> int:
        """Begins a bundle after that one, and returns its number; what later ones delivered is pulled again."""
        with self._changed:
            self._used_s = time.monotonic()
            self._return(self._commits.lost_after(bundle if token == self.token else 0))
            self._commits.begin()
            return self._commits.bundle

    def take(self, wait_s: float) -> list[Pulled]:
        """What has arrived; waits for it, though only shortly when the runner has told of a commit.

        Raises:
            InputError: Pub/Sub refuses the subscription.
        """
        with self._changed:
            shortly_s = min(wait_s, _COMMIT_S)
            if not self._changed.wait_for(self._something, shortly_s):
                self._changed.wait_for(lambda: self._committing() or self._something(), wait_s - shortly_s)
            self.check()
            taken = list(self._arrived)
            self._arrived.clear()
            self._octets = 0
            self._used_s = time.monotonic()
            self._changed.notify_all()
            return taken

    def give(self, message: Pulled) -> None:
        """Takes note that a message is delivered in this bundle."""
        with self._changed:
            self._commits.give(message.lease)
            self._used_s = time.monotonic()

    def put_back(self, messages: list[Pulled]) -> None:
        """Takes messages that were not delivered; they are the next ones again."""
        with self._changed:
            self._arrived.extendleft(reversed(messages))
            self._octets += sum(len(one.octets) for one in messages)

    def finalized(self, bundle: int) -> None:
        """The runner has finalized a bundle."""
        with self._changed:
            self._acknowledged += self._commits.finalized(bundle)
            self._heard_s = time.monotonic()
            self._changed.notify_all()

    def await_commit(self, register: Callable[[Callable[[], None]], None]) -> None:
        """Asks the runner to tell when this bundle is committed, if it matters; with `BundleFinalizerParam.register`.

        Not for every bundle: Flink keeps what such a bundle was processed with until the next checkpoint.
        """
        with self._changed:
            now_s = time.monotonic()
            if not self._commits.uncommitted:
                self._commits.heard, self._heard_s = False, now_s
                return
            if not self._commits.heard and now_s - self._asked_s < _ASK_S:
                return
            if not self._told and now_s - self._heard_s > SILENT_S:
                self._told = True
                _log.warning(
                    "%s: the runner has told of no commit for %d s, so nothing is acknowledged; on Flink, set "
                    "--checkpointing_interval", self._subscription.url, SILENT_S,
                )  # fmt: skip
            self._commits.heard, self._asked_s = False, now_s
            bundle = self._commits.bundle
        register(lambda: self.finalized(bundle))

    @property
    def quiet_s(self) -> float:
        """How long no message has come."""
        return time.monotonic() - self._arrived_s

    @property
    def uncommitted(self) -> int:
        """How many messages are not acknowledged yet."""
        with self._changed:
            return self._commits.uncommitted + len(self._acknowledged)

    def close(self) -> None:
        """Gives back what is not committed, and ends."""
        with self._changed:
            if self.closed:
                return
            self.closed = True
            self._return(self._commits.lost_after(0))
            self._return([one.lease for one in self._arrived])
            self._arrived.clear()
            self._changed.notify_all()

    def check(self) -> None:
        """Raises what has ended it, if it was an error."""
        if self._error is not None:
            raise self._error

    def join(self, wait_s: float) -> None:
        """Waits until everything was given back, once it is closed."""
        for thread in self._threads:
            thread.join(wait_s)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as fault:
            self._fail(fault)

    def _committing(self) -> bool:
        return self._commits.heard and self._commits.uncommitted > 0

    def _something(self) -> bool:
        return bool(self._arrived or self._error or self.closed)

    def _return(self, leases: list[str]) -> None:
        self._returned += leases

    def _pull(self) -> None:
        """Reads one stream after the other."""
        failures, refused_s = 0, None
        while not self.closed:
            try:
                self._streams += 1
                requests = self._requests(self._streams)
                self._call = self._client.transport.streaming_pull(requests, metadata=self._routing())
                for answer in self._call:
                    failures, refused_s = 0, None
                    self._arrive(type(answer).pb(answer).received_messages)
                    if self.closed:
                        break
            except Exception as error:
                if self.closed:
                    break
                refused_s = self._failed(error, refused_s)
            with self._changed:
                self._changed.wait_for(lambda: self.closed, min(_AGAIN_S * 2.0 ** min(failures, 10), _AGAIN_MOST_S))
            failures += 1

    def _failed(self, error: Exception, refused_s: float | None) -> float | None:
        """Since when Pub/Sub refuses; after a minute that is an error."""
        trouble = trouble_of(self._subscription, error)
        _log.info("%s", trouble.line)
        if not trouble.final:
            return None
        now_s = time.monotonic()
        if refused_s is not None and now_s - refused_s > REFUSED_S:
            self._fail(InputError(trouble.line))
        return refused_s or now_s

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
        self.close()

    def _requests(self, stream: int) -> Iterator[Any]:
        """What is sent on a stream: what to pull, then a sign of life now and then."""
        from google.pubsub_v1 import StreamingPullRequest

        yield StreamingPullRequest(
            subscription=self._subscription.path,
            stream_ack_deadline_seconds=self._deadline_s,
            client_id=self.token,
            max_outstanding_messages=_OUTSTANDING_MESSAGES,
            max_outstanding_bytes=_OUTSTANDING_OCTETS,
        )
        while not self.closed and stream == self._streams:
            with self._changed:
                self._changed.wait_for(lambda: self.closed, _ALIVE_S)
            yield StreamingPullRequest()

    def _routing(self) -> tuple[tuple[str, str]]:
        from google.api_core.gapic_v1.routing_header import to_grpc_metadata

        return (to_grpc_metadata((("subscription", self._subscription.path),)),)

    def _arrive(self, messages: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._octets < HELD_OCTETS_MOST or self.closed)
            for received in messages:
                message = received.message
                position = int(message.message_id) if message.message_id.isdecimal() else 0
                one = Pulled(message.data, position, message.publish_time.ToNanoseconds(), received.ack_id)
                if self.closed:
                    self._return([one.lease])
                else:
                    self._arrived.append(one)
                    self._arrived_s = time.monotonic()
                    self._octets += len(one.octets)
            self._changed.notify_all()

    def _keep(self) -> None:
        """Acknowledges what is committed, gives back what was undone, and extends the other leases."""
        extended_s = time.monotonic()
        while True:
            due_s = extended_s + self._deadline_s / 3
            with self._changed:
                self._changed.wait_for(
                    lambda: self.closed or self._acknowledged or self._returned, max(0.0, due_s - time.monotonic())
                )
                acknowledged, returned = self._acknowledged[:], self._returned[:]
                closed = self.closed
                now_s = time.monotonic()
                kept = [one.lease for one in self._arrived] + self._commits.leases if now_s >= due_s else []
                left = not closed and now_s - self._used_s > LEFT_S
            done = self._tell("acknowledge", acknowledged) and self._tell("modify_ack_deadline", returned, 0)
            self._tell("modify_ack_deadline", kept, self._deadline_s)
            if now_s >= due_s:
                extended_s = now_s
            with self._changed:
                if done or closed:
                    del self._acknowledged[: len(acknowledged)], self._returned[: len(returned)]
                    self._changed.notify_all()
                else:
                    self._changed.wait_for(lambda: self.closed, 1.0)
            if left:
                self.close()
            if closed:
                break
        if self._call is not None:
            self._call.cancel()
        self._client.transport.close()

    def _tell(self, what: str, leases: list[str], deadline_s: int | None = None) -> bool:
        """Makes a call for so many leases; whether that worked. If not, they expire, and messages come again."""
        ids = iter(leases)
        while chosen := list(itertools.islice(ids, _IDS_OF_A_CALL)):
            request: dict[str, Any] = {"subscription": self._subscription.path, "ack_ids": chosen}
            if deadline_s is not None:
                request["ack_deadline_seconds"] = deadline_s
            try:
                getattr(self._client, what)(request=request, retry=None, timeout=CALL_S)
            except Exception as error:
                trouble = trouble_of(self._subscription, error)
                _log.info("%s: %s", what, trouble.line)
                return trouble.final
        return True
