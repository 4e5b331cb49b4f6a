"""Signing in and out: `events:auth`."""

from __future__ import annotations

from datetime import date

import msgspec

from event_router import Event, EventHandler, Identifier, Reject, StateTransaction, Text, on
from handlers.login_days import LoginDays

STREAK_DAYS = 7
"""A run of at least so many days is worth a notification."""
NOTIFICATION_STREAM = "events:notification"
NOTIFICATION_MAXLEN = 10_000


class Login(msgspec.Struct):
    """A user signed in."""

    user_id: Identifier
    ip: Text | None = None
    device: Text | None = None


class Logout(msgspec.Struct):
    """A user signed out."""

    user_id: Identifier


class AuthEventHandler(EventHandler):
    """Keeps each user's sign-in state and presence, and counts the logins of a day."""

    domain = "auth"

    @on("login")
    async def login(self, event: Event[Login], state: StateTransaction) -> None:
        """Count the login, and add its day to the user's days."""
        day = event.day
        user = state.entity("user", event.data.user_id)
        try:
            known = LoginDays.parse(await user.get("login_days"))
        except ValueError as error:
            raise Reject(f"login_days of user {event.data.user_id!r}: {error}") from None
        user.set_latest(last_login=event.timestamp)
        user.increment("login_count")
        state.presence(event.data.user_id, "online", connection=event.data.device)
        state.statistics("daily", day).increment("logins")
        days = known.with_day(day)
        if days is not known:
            streak, newest = days.streak, days.newest
            user.set(login_days=str(days), login_streak=streak, last_login_date=newest)
            if streak >= STREAK_DAYS:
                _notify(event, state, streak, newest)

    @on("logout")
    async def logout(self, event: Event[Logout], state: StateTransaction) -> None:
        """Keep the time of the latest logout; the user is gone, on every device."""
        state.entity("user", event.data.user_id).set_latest(last_logout=event.timestamp)
        state.presence(event.data.user_id, "offline")


def _notify(event: Event[Login], state: StateTransaction, streak: int, newest: date) -> None:
    """Tell of a run of days, once for the day that it ends at."""
    user_id, day = event.data.user_id, newest.isoformat()
    first_time = state.once(f"login_streak:{user_id}:{day}")
    first_time.emit(
        NOTIFICATION_STREAM,
        maxlen=NOTIFICATION_MAXLEN,
        type="login_streak",
        user_id=user_id,
        streak=streak,
        day=day,
        timestamp=event.timestamp,
    )
    message = {"type": "login_streak", "user_id": user_id, "streak": streak, "day": day}
    first_time.publish(f"user:{user_id}", message)
    first_time.publish("notifications", message)
