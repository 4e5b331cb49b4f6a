"""Text to epoch milliseconds and back; all in UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router.core.timestamps import (
    LAST_MS,
    format_time,
    parse_time,
    shortened,
    to_datetime,
    to_milliseconds,
    utc_day,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
milliseconds = st.integers(0, LAST_MS)


def naive(days: int) -> datetime:
    """So many days after the epoch, without a zone."""
    return EPOCH.replace(tzinfo=None) + timedelta(days=days)


@settings(deadline=None)
@given(milliseconds)
def test_a_time_comes_back_as_it_was_written(time_ms: int) -> None:
    written = format_time(time_ms)
    assert len(written) == 24
    assert parse_time(written) == time_ms
    assert to_milliseconds(to_datetime(time_ms)) == time_ms
    assert utc_day(time_ms).isoformat() == written[:10]


@settings(deadline=None)
@given(milliseconds.filter(lambda number: len(str(number)) != 8))
def test_epoch_milliseconds_as_number_and_as_text(time_ms: int) -> None:
    assert parse_time(time_ms) == parse_time(str(time_ms)) == time_ms


@settings(deadline=None)
@given(st.datetimes(naive(2), naive(2_900_000)), st.integers(-1439, 1439))
def test_offsets_are_taken_off_and_naive_means_utc(moment: datetime, minutes: int) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    expected = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    assert parse_time(moment.isoformat()) == expected
    assert to_milliseconds(moment) == expected
    sign, ahead = ("+", minutes) if minutes >= 0 else ("-", -minutes)
    written = f"{moment.isoformat()}{sign}{ahead // 60:02d}:{ahead % 60:02d}"
    assert parse_time(written) == expected - minutes * 60_000


def test_eight_digits_are_a_date() -> None:
    assert parse_time("20240115") == parse_time("2024-01-15")


@pytest.mark.parametrize("value", [-1, LAST_MS + 1, "1969-12-31T23:59:59Z", "9999999999999999", 10**40])
def test_outside_the_years_1970_to_9999(value: object) -> None:
    with pytest.raises(ValueError, match="1970 to 9999"):
        parse_time(value)


@pytest.mark.parametrize("value", [None, 1.0, True, b"2026", [], "", "now", "١٢٣", "0" * 17, "20261103xx"])
def test_no_time_at_all(value: object) -> None:
    with pytest.raises(ValueError, match=r"ISO 8601|epoch"):
        parse_time(value)


def test_days_change_at_midnight_in_utc() -> None:
    assert utc_day(86_399_999) == date(1970, 1, 1)
    assert utc_day(86_400_000) == date(1970, 1, 2)


def test_shortened_fits_a_log_line() -> None:
    assert shortened("a\nb") == "'a\\nb'"
    assert len(shortened("x" * 1000)) == 60
