"""Back-pressure for a runner that has none: what was handed on and not worked on yet holds back what reads more."""

import threading
import time
from collections import Counter

_waiting: Counter[str] = Counter()
_changed = threading.Condition()


def sent(job: str, octets: int) -> None:
    """Something was handed on."""
    with _changed:
        _waiting[job] += octets


def taken(job: str, octets: int) -> None:
    """It was worked on, in this process."""
    with _changed:
        _waiting[job] = max(0, _waiting[job] - octets)
        _changed.notify_all()


def wait(job: str, most_octets: int, most_s: float = 10.0) -> float:
    """Waits until at most so much is underway, but not for ever; returns how long, in seconds."""
    begun_s = time.monotonic()
    with _changed:
        _changed.wait_for(lambda: _waiting[job] <= most_octets, most_s)
    return time.monotonic() - begun_s
