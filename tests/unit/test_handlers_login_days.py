"""Login days are a set: in whatever order the days come, the run that ends at the newest is the same."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.login_days import MAX_RUNS, LoginDays

FIRST = date(2026, 1, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def collected(*numbers: int) -> LoginDays:
    """The days in this order, each stored as text in between, as the handler does it."""
    text = None
    for number in numbers:
        text = str(LoginDays.parse(text).with_day(day(number)))
    return LoginDays.parse(text)


def streak(numbers: set[int]) -> int:
    newest = max(numbers)
    return next(length for length in range(len(numbers) + 2) if newest - length not in numbers)


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """First and last of each run, newest first."""
    firsts = sorted((n for n in numbers if n - 1 not in numbers), reverse=True)
    return [(first, next(n for n in range(first, 10**6) if n + 1 not in numbers)) for first in firsts]


def text_of(numbers: set[int]) -> str:
    return ",".join(
        f"{day(first)}" if first == last else f"{day(first)}/{day(last)}" for first, last in runs(numbers)
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1))
def test_days_are_the_set_of_days(numbers: list[int]) -> None:
    days = collected(*numbers)
    assert str(days) == text_of(set(numbers))
    assert days.streak == streak(set(numbers))
    assert days.newest == day(max(numbers))


def test_every_order_of_a_run_of_seven_gives_seven() -> None:
    assert {collected(*order).streak for order in permutations(range(7))} == {7}


@pytest.mark.parametrize(
    ("stored", "added", "left"),
    [
        (None, 0, "2026-01-01"),
        ("2026-01-05", 4, "2026-01-05"),
        ("2026-01-05", 5, "2026-01-05/2026-01-06"),
        ("2026-01-05", 3, "2026-01-04/2026-01-05"),
        ("2026-01-05", 6, "2026-01-07,2026-01-05"),
        ("2026-01-05", 2, "2026-01-05,2026-01-03"),
        ("2026-01-07,2026-01-05", 5, "2026-01-05/2026-01-07"),
        ("2026-01-09/2026-01-20,2026-01-01/2026-01-07", 7, "2026-01-01/2026-01-20"),
        ("2026-01-09/2026-01-20,2026-01-01/2026-01-07", 14, "2026-01-09/2026-01-20,2026-01-01/2026-01-07"),
        ("2025-12-31", 0, "2025-12-31/2026-01-01"),
        ("2024-02-28,2024-02-20", -672, "2024-02-28/2024-02-29,2024-02-20"),
    ],
)
def test_a_day_joins_runs_or_begins_one(stored: str | None, added: int, left: str) -> None:
    assert str(LoginDays.parse(stored).with_day(day(added))) == left


def test_a_day_that_changes_nothing_gives_the_same_object() -> None:
    days = LoginDays.parse("2026-01-05/2026-01-07,2026-01-01")
    for known in (0, 4, 5, 6):
        assert days.with_day(day(known)) is days


def test_no_days() -> None:
    none = LoginDays.parse(None)
    assert (str(none), none.streak) == ("", 0)
    with pytest.raises(LookupError):
        _ = none.newest


class TestCap:
    """At most 32 runs are kept, the newest."""

    full = collected(*range(0, 2 * MAX_RUNS, 2))

    def test_a_new_run_pushes_the_oldest_out(self) -> None:
        days = self.full.with_day(day(100))
        assert str(days).count(",") == MAX_RUNS - 1
        assert str(days).startswith("2026-04-11,")
        assert str(days).endswith(f",{day(2)}")

    def test_an_older_day_changes_no_run(self) -> None:
        assert self.full.with_day(day(-2)) is self.full
        assert self.full.with_day(day(-1000)) is self.full

    def test_a_day_next_to_the_oldest_run_belongs_to_it(self) -> None:
        assert str(self.full.with_day(day(-1))).endswith(f",{day(-1)}/{day(0)}")

    def test_a_day_between_two_runs_makes_room(self) -> None:
        assert str(self.full.with_day(day(1))).count(",") == MAX_RUNS - 2

    @settings(deadline=None)
    @given(st.permutations(range(0, 2 * MAX_RUNS + 20, 2)))
    def test_the_newest_run_is_right_all_the_same(self, numbers: list[int]) -> None:
        days = collected(*numbers)
        assert str(days).count(",") == MAX_RUNS - 1
        assert (days.streak, days.newest) == (1, day(max(numbers)))

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 400), min_size=1))
    def test_what_is_kept_are_days_that_came(self, numbers: list[int]) -> None:
        kept = str(collected(*numbers)).split(",")
        assert len(kept) <= MAX_RUNS
        first_days = [part[:10] for part in kept]
        assert all(later > earlier for later, earlier in pairwise(first_days))
        came = {day(number).isoformat() for number in numbers}
        assert {text for part in kept for text in part.split("/")} <= came


class TestRubbish:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "rubbish",
            "2026-01-05,",
            ",2026-01-05",
            "2026-01-05/",
            "2026-01-05/2026-01-04",
            "2026-01-05,2026-01-06",
            "2026-01-05,2026-01-05",
            "2026-01-05,2026-01-04",
            "2026-01-05/2026-01-07,2026-01-06",
            "2026-02-30",
            "2026-13-01",
            "0000-01-01",
            "20260105",
            "20261103xx",
            "2026-W01-1",
            "2026-01-05 ",
            "2026-01-05\n",
            "\uff12026-01-05",
            "2026-01-05//2026-01-07",
            "x" * 100_000,
        ],
    )
    def test_is_refused_and_shown_short(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no list of day intervals, newest first") as caught:
            LoginDays.parse(text)
        assert len(str(caught.value)) < 150
        assert str(caught.value).isprintable()

    @settings(deadline=None)
    @given(st.text())
    def test_nothing_but_a_value_error_comes_of_it(self, text: str) -> None:
        try:
            days = LoginDays.parse(text)
        except ValueError:
            return
        assert str(days) == text
