"""Event times: text to epoch milliseconds and back. All times are UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = _EPOCH.replace(tzinfo=None)
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
# Looked up: formatting them for each event took three times as long (measured).
_MINUTES = [f"T{hour:02d}:{minute:02d}:" for hour in range(24) for minute in range(60)]
_SECONDS = [f"{second:02d}." for second in range(60)]
_MILLISECONDS = [f"{millisecond:03d}Z" for millisecond in range(1000)]
DAY_MS = 86_400_000
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, the last that `datetime` can hold."""


def parse_time(value: object) -> int:
    """Return epoch milliseconds of an ISO 8601 text (naive means UTC) or of epoch milliseconds.

    Raises:
        ValueError: the value is no time between 1970 and 9999; the message says what it is.
    """
    if type(value) is str:
        # Ten to sixteen digits are milliseconds; eight would be an ISO date.
        digits = 10 <= len(value) <= 16 and value.isdecimal() and value.isascii()
        milliseconds = int(value) if digits else _parse_text(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        milliseconds = value
    else:
        raise ValueError(f"{type(value).__name__} is neither ISO 8601 text nor epoch milliseconds")
    if not 0 <= milliseconds <= LAST_MS:
        raise ValueError(f"{shortened(value)} lies outside the years 1970 to 9999")
    return milliseconds


def _parse_text(text: str) -> int:
    if text.isascii():
        if text.isdecimal() and len(text) <= 16 and len(text) != 8:  # 20240115 is an ISO date
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
            naive = moment.tzinfo is None
            return (moment - (_NAIVE_EPOCH if naive else _EPOCH)) // _MILLISECOND
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"{shortened(text)} is neither ISO 8601 nor epoch milliseconds")


def format_time(milliseconds: int) -> str:
    """Return `YYYY-MM-DDTHH:MM:SS.mmmZ` for epoch milliseconds."""
    day, rest = divmod(milliseconds, DAY_MS)
    minutes, rest = divmod(rest, 60_000)
    return format_day(_day(day)) + _MINUTES[minutes] + _SECONDS[rest // 1000] + _MILLISECONDS[rest % 1000]


@lru_cache(maxsize=1024)
def format_day(day: date) -> str:
    """Return `YYYY-MM-DD`; kept, because many events are of one day."""
    return day.isoformat()


def to_datetime(milliseconds: int) -> datetime:
    """Return the aware UTC datetime of epoch milliseconds."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_milliseconds(moment: datetime) -> int:
    """Return the epoch milliseconds of a datetime; naive means UTC. Microseconds are cut off."""
    return (moment - (_NAIVE_EPOCH if moment.tzinfo is None else _EPOCH)) // _MILLISECOND


def utc_day(milliseconds: int) -> date:
    """Return the UTC calendar day of epoch milliseconds."""
    return _day(milliseconds // DAY_MS)


@lru_cache(maxsize=1024)
def _day(number: int) -> date:
    return date.fromordinal(_EPOCH_DAY + number)


def shortened(value: object, limit: int = 60) -> str:
    """Return the value's repr, cut to a length that fits a log line."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
