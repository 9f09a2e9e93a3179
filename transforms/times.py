"""Times as people and tools write them."""

import re
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9})\d*)?)?)?\s?(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_EPOCH = re.compile(r"-?\d+(\.\d+)?")
_DIGITS_OF_S, _DIGITS_OF_MS, _DIGITS_OF_US = 11, 14, 17
_NS_PER_S = 1_000_000_000
_NS_PER_DAY = 86_400 * _NS_PER_S


def time_ns(text: str, zone: tzinfo = timezone.utc, is_end: bool = False) -> int:
    """Nanoseconds since the Unix epoch.

    Args:
        text: ISO 8601, or a number since the epoch: of seconds, and with more than 11 digits before its point of
            milliseconds, with more than 14 of microseconds, with more than 17 of nanoseconds.
        zone: Where ISO 8601 names none.
        is_end: A date without a time is the end of that day, not its start.

    Raises:
        ValueError: It is neither.
    """
    text = text.strip()
    if _EPOCH.fullmatch(text):
        digits = len(text.partition(".")[0].lstrip("-"))
        limits = (_DIGITS_OF_S, _DIGITS_OF_MS, _DIGITS_OF_US)
        return int(Decimal(text) * 10 ** (9 - 3 * sum(digits > limit for limit in limits)))
    read = _ISO.fullmatch(text)
    if read is None:
        raise ValueError("is no time such as 2026-01-31T12:00:00Z or 1769860800")
    year, month, day, hour, minute, second, fraction, offset = read.groups()
    if offset:
        zone = timezone.utc if offset in "Zz" else _offset(offset)
    moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=zone)
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    whole = (since.days * 86_400 + since.seconds) * _NS_PER_S + int((fraction or "0").ljust(9, "0"))
    return whole + _NS_PER_DAY - 1 if is_end and hour is None else whole


def _offset(text: str) -> timezone:
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
