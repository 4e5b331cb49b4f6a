"""What can be no question or answer, and what becomes of one that does not count."""

from __future__ import annotations

from event_router.core.errors import (
    AlreadyAnswered,
    EventRouterError,
    InvalidEvent,
    InvalidRequest,
    NotTheOwner,
    RequestExpired,
    UnknownRequest,
)
from event_router.core.input_request import RequestId, parse_request_id
from event_router.core.payloads import check_identifier, check_text

_REFUSALS: dict[str, tuple[type[EventRouterError], str]] = {
    "unknown": (UnknownRequest, "there is no request {}, or no longer"),
    "stranger": (NotTheOwner, "request {} was put to another user"),
    "answered before": (AlreadyAnswered, "request {} is answered already"),
    "expired": (RequestExpired, "request {} expired; nobody answered in time"),
}


def refusal(given: RequestId, outcome: str) -> EventRouterError:
    """Return the error for what a script said became of a call."""
    error, message = _REFUSALS[outcome]
    return error(message.format(given))


def known_id(request_id: str) -> RequestId:
    """Return the parts of an id. Raises UnknownRequest for what can be none: there is no such request."""
    try:
        return parse_request_id(request_id)
    except InvalidRequest as error:
        raise UnknownRequest(str(error)) from None


def identifier(name: str, value: str | int) -> str:
    """Return an identifier as text. Raises InvalidRequest."""
    try:
        return check_identifier(name, value)
    except InvalidEvent as error:
        raise InvalidRequest(str(error)) from None


def text_of(name: str, value: object) -> str:
    """Return a text of at most 64 kB. Raises InvalidRequest for anything else."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be text, not {type(value).__name__}")
    try:
        check_text(name, value)
    except InvalidEvent as error:
        raise InvalidRequest(str(error)) from None
    return value
