from datetime import timezone
from zoneinfo import ZoneInfo

import pytest

from transforms.times import time_ns

S = 1_000_000_000
NOON = 1_767_614_400 * S
"""2026-01-05T12:00:00Z."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T12:00:00Z", NOON),
        ("2026-01-05 12:00", NOON),
        ("2026-01-05T09:00:00-03:00", NOON),
        ("2026-01-05T13:30:00.5+0130", NOON + S // 2),
        ("2026-01-05T12:00:00.123456789Z", NOON + 123_456_789),
        ("2026-01-05T12:00:00,25z", NOON + S // 4),
        (" 2026-01-05T12:00:00.123456+0000 ", NOON + 123_456_000),
        ("1767614400", NOON),
        ("1767614400.123456", NOON + 123_456_000),
        ("1767614400.000000001", NOON + 1),
        ("1767614400123", NOON + 123_000_000),
        ("1767614400123456", NOON + 123_456_000),
        ("1767614400123456789", NOON + 123_456_789),
        ("0", 0),
        ("-1.5", -3 * S // 2),
    ],
)
def test_times_are_exact(text, expected):
    assert time_ns(text) == expected


def test_a_zone_is_for_times_without_one():
    """CICIDS2017 tells its attacks in the local time of New Brunswick, in summer three hours behind."""
    halifax = ZoneInfo("America/Halifax")
    assert time_ns("2017-07-05T10:43:00", halifax) == time_ns("2017-07-05T13:43:00Z")
    assert time_ns("2017-07-05T10:43:00Z", halifax) == time_ns("2017-07-05T10:43:00", timezone.utc)
    assert time_ns("1767614400", halifax) == NOON


def test_a_date_is_the_whole_day():
    start, end = time_ns("2026-01-05"), time_ns("2026-01-05", is_end=True)
    assert (start, end) == (NOON - 12 * 3600 * S, NOON + 12 * 3600 * S - 1)
    assert time_ns("2026-01-05T12:00", is_end=True) == NOON


@pytest.mark.parametrize(
    "text", ["", "noon", "12:00", "2026-13-05", "05/01/2026", "2026-01-05T25:00", "nan", "inf", "1e9"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"is no time such as|day|month|hour"):
        time_ns(text)
