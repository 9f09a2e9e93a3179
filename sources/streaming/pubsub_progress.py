"""How far a reader of a subscription has come, as the runner keeps it."""

import json

from apache_beam.coders import Coder

from sources.streaming.reading_tracker import Reading
from sources.streaming.streams_seen import StreamsSeen

EPOCHS_MOST = 4
"""Of each part of a sensor: so many starts are kept in mind, the latest."""


class PullProgress:
    """What a reader has seen, and which bundle it was in.

    Attributes:
        token: Of the pull that the bundle read from.
        bundle: Number of the bundle there.
        seen: The streams of all messages so far.
    """

    def __init__(self) -> None:
        self.token = ""
        self.bundle = 0
        self.seen = StreamsSeen(EPOCHS_MOST)

    def begin(self, token: str, bundle: int) -> None:
        """A bundle begins."""
        self.token, self.bundle = token, bundle

    def to_bytes(self) -> bytes:
        """All of it."""
        return json.dumps([self.token, self.bundle, self.seen.to_bytes().decode()], separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, octets: bytes) -> "PullProgress":
        """The inverse of `to_bytes`."""
        progress = cls()
        progress.token, progress.bundle, seen = json.loads(octets)
        progress.seen = StreamsSeen.from_bytes(seen.encode())
        return progress


class PullReadingCoder(Coder):
    """A reading of a subscription, as the runner keeps it."""

    def encode(self, value: Reading) -> bytes:
        """The progress, and whether that is all."""
        return bytes([value.over]) + value.progress.to_bytes()

    def decode(self, encoded: bytes) -> Reading:
        """The inverse."""
        return Reading(PullProgress.from_bytes(encoded[1:]), bool(encoded[0]))

    def is_deterministic(self) -> bool:
        """It is no key."""
        return False
