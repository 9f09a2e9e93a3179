"""How often something happened within the hour, for what is written or told so many times at most."""

import threading
import time
from collections import Counter


class HourlyCount:
    """Counts by name, from nothing in each hour; for all threads of a process."""

    def __init__(self) -> None:
        self._hour = 0
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, now_s: float | None = None) -> int:
        """Counts one more; returns how many there were within the hour."""
        hour = int((time.time() if now_s is None else now_s) // 3600)
        with self._lock:
            if hour != self._hour:
                self._hour = hour
                self._counts.clear()
            self._counts[name] += 1
            return self._counts[name]
