"""The days on which a user signed in, and the run of days that follows from them."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

MAX_RUNS = 32
"""Runs that are kept; the oldest go first."""
_DAY = r"\d{4}-\d\d-\d\d"
# date.fromisoformat alone takes other forms too, and in Python 3.11 '20261103xx'.
_FORM = re.compile(rf"({_DAY})(?:/({_DAY}))?", re.ASCII)


class LoginDays:
    """A set of days as runs of consecutive ones, newest first. Does not change.

    Because it is a set, the order in which the days arrive does not matter. As text a run is `first/last`
    or a single day, and runs are joined by commas: `2026-11-01/2026-11-03,2026-10-20`.
    """

    __slots__ = ("_runs",)

    def __init__(self, runs: tuple[tuple[int, int], ...] = ()) -> None:
        self._runs = runs  # (first, last) as ordinals, newest first, at least one day apart

    @classmethod
    def parse(cls, text: str | None) -> LoginDays:
        """Return the days in a stored text; None holds none.

        Raises:
            ValueError: the text is no list of day intervals, newest first.
        """
        if text is None:
            return cls()
        try:
            runs = []
            before = date.max.toordinal() + 2
            for part in text.split(","):
                run = _run(part)
                if run[1] > before - 2:
                    raise ValueError
                runs.append(run)
                before = run[0]
        except ValueError:
            shown = text if len(text) <= 60 else f"{text[:60]}…"
            raise ValueError(f"{shown!r} is no list of day intervals, newest first") from None
        return cls(tuple(runs))

    def __str__(self) -> str:
        return ",".join(
            _day(last) if first == last else f"{_day(first)}/{_day(last)}" for first, last in self._runs
        )

    def __repr__(self) -> str:
        return f"<LoginDays {self}>"

    @property
    def newest(self) -> date:
        """The newest day. Raises LookupError when there is none."""
        return date.fromordinal(self._runs[0][1])

    @property
    def streak(self) -> int:
        """The length of the run that ends at the newest day; 0 when there is none."""
        if not self._runs:
            return 0
        first, last = self._runs[0]
        return last - first + 1

    def with_day(self, day: date) -> LoginDays:
        """Return the days and this one; the very same object where that changes nothing.

        That is a day it has, and one so old that it would be a run beyond the 32 that are kept.
        """
        number = day.toordinal()
        first = last = number
        newer: list[tuple[int, int]] = []
        older: list[tuple[int, int]] = []
        for run in self._runs:
            if run[0] <= number <= run[1]:
                return self
            if run[0] == number + 1:
                last = run[1]
            elif run[1] == number - 1:
                first = run[0]
            else:
                (newer if run[0] > number else older).append(run)
        if len(newer) == MAX_RUNS:
            return self
        return LoginDays((*newer, (first, last), *older)[:MAX_RUNS])


@lru_cache(maxsize=4096)
def _run(text: str) -> tuple[int, int]:
    """Return the ordinals of a run's first and last day. Raises ValueError for another form."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError
    first = date.fromisoformat(found[1]).toordinal()
    last = date.fromisoformat(found[2]).toordinal() if found[2] else first
    if first > last:
        raise ValueError
    return first, last


@lru_cache(maxsize=4096)
def _day(ordinal: int) -> str:
    return date.fromordinal(ordinal).isoformat()
