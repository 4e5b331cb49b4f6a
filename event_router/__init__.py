"""Routes the events of Redis Streams to handlers and commits each event's effects exactly once."""

from __future__ import annotations

from event_router.core.errors import (
    ConfigurationError,
    EventRouterError,
    InvalidEvent,
    InvalidState,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
    Reject,
    StateError,
)
from event_router.core.event import Event, Identifier, JsonText, Percent, Score, Sequence, Text
from event_router.core.handler import EventHandler, on
from event_router.core.state import StateTransaction

__all__ = [
    "ConfigurationError",
    "Event",
    "EventHandler",
    "EventRouterError",
    "Identifier",
    "InvalidEvent",
    "InvalidState",
    "JsonText",
    "OutcomeUnknown",
    "Percent",
    "RedisRefused",
    "RedisUnavailable",
    "Reject",
    "Score",
    "Sequence",
    "StateError",
    "StateTransaction",
    "Text",
    "on",
]
