"""Signing in and out."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router.testing import Published, State, apply, event
from handlers.auth import AuthEventHandler

USER = "state:user:1"
FIELDS = ("last_login", "login_count", "login_days", "login_streak", "last_login_date")


def login(timestamp: str = "2026-11-03T10:00:00Z", user_id: str = "1", **more: object) -> Published:
    return event("auth", "login", user_id=user_id, timestamp=timestamp, **more)


def logins(*days: int) -> list[Published]:
    return [login(f"2026-11-{day:02d}T10:00:00Z") for day in days]


def pinned(state: State) -> dict[str, str]:
    return {field: state[USER][field] for field in FIELDS}


def test_who_signed_in_last_is_present() -> None:
    gone = event("auth", "logout", user_id="2", timestamp="2026-11-03T11:00:00Z")
    again = login("2026-11-03T12:00:00Z", user_id="3", device="phone")
    late = event("auth", "logout", user_id="3", timestamp="2026-11-03T11:00:00Z")
    state = apply(AuthEventHandler(), [login(), login(user_id="2"), gone, again, late])
    assert state.presence == {"1": "online", "2": "offline", "3": "online"}


def test_a_login() -> None:
    state = apply(AuthEventHandler(), [login(ip="10.0.0.1", device="phone")])
    assert pinned(state) == {
        "last_login": "2026-11-03T10:00:00.000Z",
        "login_count": "1",
        "login_days": "2026-11-03",
        "login_streak": "1",
        "last_login_date": "2026-11-03",
    }
    assert state["stats:daily:2026-11-03"] == {"logins": "1"}
    assert state.dead_letters == []


def test_the_same_day_again_only_counts() -> None:
    state = apply(AuthEventHandler(), [login(), login("2026-11-03T09:00:00Z"), login("2026-11-03T11:00:00Z")])
    assert pinned(state)["login_count"] == "3"
    assert pinned(state)["login_streak"] == "1"
    assert pinned(state)["last_login"] == "2026-11-03T11:00:00.000Z"
    assert state["stats:daily:2026-11-03"] == {"logins": "3"}


def test_days_are_those_of_utc() -> None:
    state = apply(AuthEventHandler(), [login("2026-11-03T23:30:00-02:00")])
    assert pinned(state)["last_login_date"] == "2026-11-04"


@settings(deadline=None)
@given(st.permutations([1, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]))
def test_the_order_does_not_matter(days: list[int]) -> None:
    state = apply(AuthEventHandler(), logins(*days))
    assert pinned(state) == {
        "last_login": "2026-11-11T10:00:00.000Z",
        "login_count": "11",
        "login_days": "2026-11-05/2026-11-11,2026-11-01/2026-11-03",
        "login_streak": "7",
        "last_login_date": "2026-11-11",
    }
    assert len(state.entries("events:notification")) == 1


class TestStreak:
    def test_of_seven_is_told_once(self) -> None:
        state = apply(AuthEventHandler(), logins(1, 2, 3, 4, 5, 6, 7, 7))
        assert state.entries("events:notification") == [
            {
                "type": "login_streak",
                "user_id": "1",
                "streak": "7",
                "day": "2026-11-07",
                "timestamp": "2026-11-07T10:00:00.000Z",
            }
        ]
        message = {
            "type": "login_streak",
            "user_id": "1",
            "streak": 7,
            "day": "2026-11-07",
            "timestamp": "2026-11-07T10:00:00.000Z",
        }
        assert state.messages("user:1") == [message]
        assert state.messages("notifications") == [message]

    def test_of_six_is_not(self) -> None:
        state = apply(AuthEventHandler(), logins(1, 2, 3, 4, 5, 6, 6))
        assert state.entries("events:notification") == []

    def test_of_each_further_day_is(self) -> None:
        state = apply(AuthEventHandler(), logins(*range(1, 10)))
        told = [(entry["day"], entry["streak"]) for entry in state.entries("events:notification")]
        assert told == [("2026-11-07", "7"), ("2026-11-08", "8"), ("2026-11-09", "9")]

    def test_is_told_once_for_a_day_however_it_grows(self) -> None:
        state = apply(AuthEventHandler(), logins(*range(4, 11), 3, 2, 1))
        assert [entry["streak"] for entry in state.entries("events:notification")] == ["7"]

    def test_completed_by_a_day_in_its_middle(self) -> None:
        for order in permutations((2, 4, 6)):
            state = apply(AuthEventHandler(), logins(1, 3, 5, 7, *order))
            assert [entry["streak"] for entry in state.entries("events:notification")] == ["7"]

    def test_of_another_user_is_told_too(self) -> None:
        events = [login(f"2026-11-{day:02d}", user) for day in range(1, 8) for user in ("1", "2:3")]
        told = [
            entry["user_id"] for entry in apply(AuthEventHandler(), events).entries("events:notification")
        ]
        assert told == ["1", "2:3"]


def test_more_runs_than_are_kept_still_count() -> None:
    days = [f"{month}-{day:02d}" for month in ("2026-09", "2026-10", "2026-11") for day in range(1, 29, 2)]
    state = apply(AuthEventHandler(), [login(day) for day in [*days, "2025-01-01"]])
    assert state[USER]["login_count"] == str(len(days) + 1)
    assert state[USER]["login_days"].count(",") == 31
    assert state["stats:daily:2025-01-01"] == {"logins": "1"}


@pytest.mark.parametrize("stored", ["", "rubbish", "2026-11-05,2026-11-06"])
def test_login_days_that_make_no_sense_reject_the_event(stored: str) -> None:
    before = {USER: {"login_days": stored, "login_count": "7"}}
    state = apply(AuthEventHandler(), [login()], before)
    (letter,) = state.dead_letters
    assert letter.reason == "rejected"
    assert "login_days of user '1'" in letter.error
    assert state == before


def test_a_login_count_that_is_no_integer_makes_the_event_invalid() -> None:
    state = apply(AuthEventHandler(), [login()], {USER: {"login_count": "007"}})
    (letter,) = state.dead_letters
    assert (letter.reason, "'login_count'" in letter.error) == ("invalid", True)


def test_a_logout_keeps_the_latest() -> None:
    times = ("2026-11-03T10:00:00Z", "2026-11-03T12:00:00Z", "2026-11-03T11:00:00Z")
    state = apply(
        AuthEventHandler(), [event("auth", "logout", user_id="1", timestamp=time) for time in times]
    )
    assert state[USER]["last_logout"] == "2026-11-03T12:00:00.000Z"
    assert "login_count" not in state[USER]


@pytest.mark.parametrize("kind", ["login", "logout"])
def test_without_a_user_it_is_invalid(kind: str) -> None:
    (letter,) = apply(AuthEventHandler(), [event("auth", kind)]).dead_letters
    assert (letter.reason, letter.error) == ("invalid", "field 'user_id' is missing")
