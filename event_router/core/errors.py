"""Every error of the router, in one place. The docstring says what it means to whoever catches it."""

from __future__ import annotations

from collections.abc import Sequence


class EventRouterError(Exception):
    """Anything event-router raises on purpose."""


class ConfigurationError(EventRouterError):
    """A setting or a handler is wrong; the message is one line that names it and says what to do."""


class InvalidEvent(EventRouterError):
    """An entry that can never become an event: the reason and what is wrong, for its dead letter.

    Attributes:
        reason: one of the dead-letter reasons (`invalid`, `unknown_type`, `too_large`, …).
    """

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class Reject(EventRouterError):
    """Raised by a handler for an event that can never succeed: dead-lettered at once, never retried."""


class StateError(EventRouterError):
    """A handler recorded effects that contradict each other or cannot be stored."""


class InvalidState(EventRouterError):
    """A key holds what the handler cannot work on (wrong Redis type): the event is dead-lettered."""


class RedisUnavailable(EventRouterError):
    """Redis cannot be reached or refuses for now; nothing is known of a write in flight. Try again."""


class RedisDenied(RedisUnavailable):
    """The user lacks a permission. It passes by an operator's hand."""


class RedisRefused(EventRouterError):
    """Redis answered with an error that trying again will not mend."""


class NoGroup(EventRouterError):
    """The consumer group (or its whole stream) does not exist. Nothing was written."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"stream {stream!r} or its consumer group does not exist")
        self.stream = stream


class OutcomeUnknown(EventRouterError):
    """The reply to an immediate write was lost: it may or may not have been applied."""


class ProducedInPart(OutcomeUnknown):
    """Of several events some were added to their streams, or may have been, and some were not.

    Attributes:
        results: for each event, in order, the id of its entry or the error that it met.
    """

    def __init__(self, message: str, results: Sequence[str | EventRouterError]) -> None:
        super().__init__(message)
        self.results = list(results)


class InvalidMessage(EventRouterError):
    """A message, channel or pattern that Pub/Sub cannot carry; the message says why. Nothing was sent."""


class UndecodableMessage(EventRouterError):
    """A message that arrived is not what the subscriber takes: no JSON, too large, or of another type."""


class NotSubscribed(EventRouterError):
    """Somebody listens who has subscribed to nothing; `subscribe` comes first."""


class InvalidSchema(EventRouterError):
    """A schema that is none, or has a keyword whose constraint would not be checked; names the place."""


class InvalidRequest(EventRouterError):
    """A question that cannot be put to a user as it is; the message names what is wrong."""


class DifferentRequest(EventRouterError):
    """A request of this id was put to another user or with another schema; it stands as it was."""


class UnknownRequest(EventRouterError):
    """There is no request of this id, or no longer."""


class NotTheOwner(EventRouterError):
    """Somebody else than the user who was asked answers. The request still waits."""


class AlreadyAnswered(EventRouterError):
    """The request has its answer: this one came second."""


class RequestExpired(EventRouterError):
    """Nobody answered the request in time."""


class ValueMisfit(EventRouterError):
    """The answer's value does not fit the request's schema; the message says where. It still waits."""
