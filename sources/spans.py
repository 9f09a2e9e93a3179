"""In which order the spans of a sensor's files are read, so that packets leave in order of time.

Every span is known by its least and greatest time. Spans that overlap no other are streamed; those that overlap are
loaded when their least time comes up, and a packet leaves once no span that is yet to be loaded can hold an earlier
one. It makes no difference why they overlap: rotated files, several interfaces, a file whose times run backwards.
"""

from collections.abc import Collection, Iterator

import numpy as np


class SpanOrder:
    """Spans with all of their times brought into one order: (time, file, run, place), so that no two are equal.

    Attributes:
        spans: `SPAN[n]`, by their first packet.
        first: `i8[n]`: place of each span's first packet in that order,
        last: and of its last one.
    """

    def __init__(self, spans: np.ndarray) -> None:
        count = len(spans)
        twice = np.concatenate([spans, spans])
        times = np.concatenate([spans["first_ns"], spans["last_ns"]])
        by_time = np.lexsort((twice["start"], twice["part"], twice["source"], times))
        places = np.empty(2 * count, np.int64)
        places[by_time] = np.arange(2 * count)
        order = np.argsort(places[:count])
        self.spans = spans[order]
        self.first = places[:count][order]
        self.last = places[count:][order]

    def peak(self) -> int:
        """The most packets that wait at one time while overlapping spans are merged."""
        change = np.zeros(2 * len(self.spans), np.int64)
        change[self.first] = self.spans["packets"]
        change[self.last] = -self.spans["packets"]
        return int(np.cumsum(change).max(initial=0))

    def clusters(self) -> Iterator[slice]:
        """Ranges of `spans`, one after another, each before the next one in time.

        A range is either of one file, in order and continuous, or spans that have to be merged.
        """
        count = len(self.spans)
        if not count:
            return
        spans = self.spans
        reached = np.maximum.accumulate(self.last)
        begins = np.flatnonzero(np.concatenate([[True], reached[:-1] < self.first[1:]]))
        alone = np.diff(np.append(begins, count)) == 1
        alone &= spans["in_order"][begins] == 1
        before = np.maximum(begins - 1, 0)
        follows = spans["start"][begins] == spans["stop"][before]
        for name in ("source", "part"):
            follows &= spans[name][begins] == spans[name][before]
        continues = np.concatenate([[False], alone[1:] & alone[:-1]]) & follows
        starts = begins[~continues].tolist()
        for start, stop in zip(starts, [*starts[1:], count], strict=True):
            yield slice(start, stop)

    def is_stream(self, cluster: slice) -> bool:
        """Whether a cluster can be passed on as it is read."""
        spans = self.spans[cluster]
        if len(spans) == 1:
            return bool(spans["in_order"][0])
        return bool((self.last[cluster][:-1] < self.first[cluster][1:]).all() and spans["in_order"].all())

    def most_open(self, sources: Collection[int]) -> int:
        """The most files of `sources` that are open at one time if each is open from its first span to its last."""
        chosen = np.isin(self.spans["source"], sorted(sources))
        source = self.spans["source"][chosen]
        end = 2 * len(self.spans)
        first, last = np.full(int(source.max(initial=0)) + 1, end), np.full(int(source.max(initial=0)) + 1, end)
        np.minimum.at(first, source, self.first[chosen])
        last[source] = -1
        np.maximum.at(last, source, self.last[chosen])
        change = np.zeros(end + 2, np.int64)
        np.add.at(change, first[last < end], 1)
        np.add.at(change, last[last < end] + 1, -1)
        return int(np.cumsum(change).max(initial=0))


def one_way(spans: np.ndarray) -> np.ndarray:
    """The spans of a file that can only be read from front to back: none is loaded after a later one."""
    spans = spans.copy()
    spans["first_ns"] = np.minimum.accumulate(spans["first_ns"][::-1])[::-1]
    return spans
