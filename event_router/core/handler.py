"""Handlers: user code for one domain, its methods marked with the event types they take."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from event_router.core.errors import ConfigurationError
from event_router.core.event import Event
from event_router.core.payloads import PayloadType
from event_router.core.state import StateTransaction

Method = TypeVar("Method", bound=Callable[..., Awaitable[None]])
Call = Callable[[Event[Any], StateTransaction], Awaitable[None]]
_MARK = "__event_router_types__"


@dataclass(frozen=True, slots=True)
class _Subscription:
    type: str
    aliases: tuple[str, ...]


def on(event_type: str, *, aliases: tuple[str, ...] = ()) -> Callable[[Method], Method]:
    """Mark a handler's method as the one that takes an event type.

    The method is `async def name(self, event: Event[Payload], state: StateTransaction) -> None`;
    `Payload` is a msgspec.Struct. `aliases` are other names under which producers write the type,
    each in full (`chat:message`). The type itself may always be written `domain:type`.
    """

    def mark(method: Method) -> Method:
        taken = getattr(method, _MARK, ())
        setattr(method, _MARK, (*taken, _Subscription(event_type, tuple(aliases))))
        return method

    return mark


class EventHandler:
    """Base of handlers. A subclass names its `domain` and marks its methods with `@on`."""

    domain: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the events of one domain and type go."""

    domain: str
    type: str
    names: tuple[str, ...]
    payload: PayloadType
    call: Call
    handler: str


def routes_of(handler: EventHandler) -> Iterator[Route]:
    """Yield the routes of a handler, one for each event type.

    Raises:
        ConfigurationError: the handler names no domain or no types, or a method has another form.
    """
    cls = type(handler)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not handler.domain or not isinstance(handler.domain, str):
        raise ConfigurationError(f'handler {name} names no domain: write `domain = "..."` in the class')
    found = False
    for attribute in dir(cls):
        for subscription in getattr(getattr(cls, attribute, None), _MARK, ()):
            found = True
            method = getattr(handler, attribute)
            _check_form(method, f"{name}.{attribute}")
            payload = PayloadType(_payload_of(getattr(cls, attribute), f"{name}.{attribute}"))
            full = f"{handler.domain}:{subscription.type}"
            yield Route(
                handler.domain,
                subscription.type,
                (subscription.type, full, *subscription.aliases),
                payload,
                method,
                name,
            )
    if not found:
        raise ConfigurationError(f'handler {name} takes no event type: mark its methods with @on("...")')


def _check_form(method: Callable[..., Any], name: str) -> None:
    if not inspect.iscoroutinefunction(inspect.unwrap(method)):
        raise ConfigurationError(f"{name} must be `async def`")
    try:
        inspect.signature(method).bind(None, None)
    except TypeError:
        raise ConfigurationError(f"{name} must take an event and a state transaction") from None


def _payload_of(method: Callable[..., Any], name: str) -> Any:
    try:
        hints = typing.get_type_hints(method)
    except (NameError, TypeError) as error:
        raise ConfigurationError(f"{name}: its annotations cannot be read: {error}") from None
    for hint in hints.values():
        if typing.get_origin(hint) is Event:
            return typing.get_args(hint)[0]
    raise ConfigurationError(f"{name} must annotate its event: `event: Event[Payload]`")
