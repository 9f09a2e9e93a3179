"""The time up to which a live line was observed, by two clocks."""

from sources.interface import ObservedTime


class Clocks:
    """A clock that a test sets, and a steady one."""

    def __init__(self) -> None:
        self.steady, self.now, self.takes = 10**12, 10**18, 0

    def __call__(self) -> tuple[int, int, int]:
        before = self.steady
        self.steady += self.takes
        self.now += self.takes
        return before, self.now, self.steady

    def wait(self, ns: int) -> None:
        self.steady += ns
        self.now += ns


def test_observed_time_never_goes_back_with_the_clock_going_on():
    clocks = Clocks()
    observed = ObservedTime(100, clocks)
    assert observed.at(observed.quiet()) == 10**18 - 100
    assert observed.at(10**18 + 5) == 10**18 + 5
    clocks.wait(50)
    clocks.takes = 10**6  # a process that is interrupted while it asks
    observed.quiet()
    clocks.takes = 0
    assert observed.at(observed.quiet() - 2 * 10**6) == 10**18 + 5


def test_observed_time_follows_a_clock_that_is_set_back():
    clocks = Clocks()
    observed = ObservedTime(100, clocks)
    observed.at(observed.quiet())
    clocks.now -= 3600 * 10**9
    assert observed.at(observed.quiet()) == 10**18 - 3600 * 10**9 - 100
    clocks.now += 7200 * 10**9
    assert observed.at(observed.quiet()) == 10**18 + 3600 * 10**9 - 100
