"""How many blocks are settled, counted in the order in which they were put, whichever of them are settled first."""

from collections import deque


class Ticket:
    """Stands for blocks that are settled together."""

    __slots__ = ("settled",)

    def __init__(self, settled: bool = False) -> None:
        self.settled = settled


class PutOrder:
    """Counts settled blocks as `LiveWriter.settled` does: a block counts once all that were put before it do."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._count = 0

    def put(self, ticket: Ticket) -> None:
        """Takes note of the next block, which is settled with its ticket."""
        self._waiting.append(ticket)

    @property
    def settled(self) -> int:
        """The number of blocks settled so far."""
        while self._waiting and self._waiting[0].settled:
            self._waiting.popleft()
            self._count += 1
        return self._count

    @property
    def waiting(self) -> int:
        """The number of blocks that do not count yet."""
        return len(self._waiting)
