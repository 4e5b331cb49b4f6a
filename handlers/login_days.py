"""The days on which a user signed in, and the run of days that follows from them."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from itertools import pairwise

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
            runs = tuple(map(_run, text.split(",")))
            for later, earlier in pairwise(runs):
                if earlier[1] > later[0] - 2:
                    raise ValueError
        except ValueError:
            shown = text if len(text) <= 60 else f"{text[:60]}…"
            raise ValueError(f"{shown!r} is no list of day intervals, newest first") from None
        return cls(runs)

    def __str__(self) -> str:
        return ",".join(map(_text, self._runs))

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
        runs = self._runs
        place = 0
        while place < len(runs) and number < runs[place][0] - 1:
            place += 1
        if place == len(runs):
            return self if place == MAX_RUNS else LoginDays((*runs, (number, number)))
        first, last = runs[place]
        if first <= number <= last:
            return self
        behind = place + 1  # the runs from here on stay as they are
        if number == last + 1:
            run = (first, number)
        elif number > last:
            run, behind = (number, number), place
        elif behind < len(runs) and runs[behind][1] == number - 1:
            run = (runs[behind][0], last)
            behind += 1
        else:
            run = (number, last)
        return LoginDays((*runs[:place], run, *runs[behind:])[:MAX_RUNS])


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
def _text(run: tuple[int, int]) -> str:
    first, last = (date.fromordinal(day).isoformat() for day in run)
    return last if first == last else f"{first}/{last}"
