"""Routes the events of Redis Streams to handlers and commits each event's effects exactly once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from event_router.core.errors import (
    ConfigurationError,
    EventRouterError,
    InvalidEvent,
    InvalidMessage,
    InvalidState,
    NotSubscribed,
    OutcomeUnknown,
    ProducedInPart,
    RedisRefused,
    RedisUnavailable,
    Reject,
    StateError,
    UndecodableMessage,
)
from event_router.core.event import Event, Identifier, JsonText, Percent, Score, Sequence, Text
from event_router.core.handler import EventHandler, on
from event_router.core.job_step import ends_job
from event_router.core.keys import KeyNames
from event_router.core.state import StateTransaction

if TYPE_CHECKING:
    from event_router.app import EventRouter
    from event_router.messaging.composite_bus import CompositeEventBus
    from event_router.messaging.messages import Gap, Message
    from event_router.messaging.producer import StreamProducer
    from event_router.messaging.publisher import EventPublisher
    from event_router.messaging.subscriber import EventSubscriber
    from event_router.redis_io.state_store import StateKVStore
    from event_router.redis_io.stream_consumer import StreamConsumer

__all__ = [
    "CompositeEventBus",
    "ConfigurationError",
    "Event",
    "EventHandler",
    "EventPublisher",
    "EventRouter",
    "EventRouterError",
    "EventSubscriber",
    "Gap",
    "Identifier",
    "InvalidEvent",
    "InvalidMessage",
    "InvalidState",
    "JsonText",
    "KeyNames",
    "Message",
    "NotSubscribed",
    "OutcomeUnknown",
    "Percent",
    "ProducedInPart",
    "RedisRefused",
    "RedisUnavailable",
    "Reject",
    "Score",
    "Sequence",
    "StateError",
    "StateKVStore",
    "StateTransaction",
    "StreamConsumer",
    "StreamProducer",
    "Text",
    "UndecodableMessage",
    "ends_job",
    "on",
]

# Imported when they are asked for: a module of handlers needs neither a Redis client nor a server.
_AT_NEED = {
    "CompositeEventBus": "event_router.messaging.composite_bus",
    "EventPublisher": "event_router.messaging.publisher",
    "EventSubscriber": "event_router.messaging.subscriber",
    "Gap": "event_router.messaging.messages",
    "Message": "event_router.messaging.messages",
    "EventRouter": "event_router.app",
    "StateKVStore": "event_router.redis_io.state_store",
    "StreamConsumer": "event_router.redis_io.stream_consumer",
    "StreamProducer": "event_router.messaging.producer",
}


def __getattr__(name: str) -> Any:
    """Import a name that talks to Redis."""
    if name not in _AT_NEED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_AT_NEED[name]), name)
    return found


def __dir__() -> list[str]:
    """Name what is public, imported or not."""
    return sorted({*globals(), *__all__})
