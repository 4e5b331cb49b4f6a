"""From what a producer sends to an entry's fields, refusing what the router would dead-letter."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from event_router.core import cloudevents
from event_router.core.decoding import MAX_ENTRY_BYTES, Decoder
from event_router.core.errors import ConfigurationError, InvalidEvent
from event_router.core.event import AnyEvent, Entry
from event_router.core.handler import EventHandler, Route
from event_router.core.json_object import json_object
from event_router.core.payloads import PayloadType, check_identifier
from event_router.core.registry import HandlerRegistry
from event_router.core.timestamps import parse_time, shortened, to_milliseconds

ProducedEvent = Mapping[str, object] | msgspec.Struct
"""An event as a producer gives it: its `type` and fields. A struct's tag, if it has one, is the type."""
Form = Literal["fields", "structured", "binary"]

_MOST_KEPT = 1_000
_BESIDE_DATA = ("type", "id", "timestamp", "traceparent", "data")


class Encoder:
    """Encodes events and decodes them again as the router does, before they are sent.

    Args:
        registry: the handlers that the events are for. Without one, types and payloads are not checked.
        max_entry_bytes: the router's `MAX_ENTRY_BYTES`.
        form: a field for each member, or a CloudEvent in one of its content modes.
        source: the CloudEvents' `source`, such as `/services/chat`.
        new_id: makes the `id` of a CloudEvent that has none.
    """

    def __init__(
        self,
        registry: HandlerRegistry | None = None,
        *,
        max_entry_bytes: int = MAX_ENTRY_BYTES,
        form: Form = "fields",
        source: str = "",
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        if form not in ("fields", "structured", "binary"):
            raise ConfigurationError(f"{form!r} is no form of an entry; take structured or binary, or none")
        if form != "fields" and not source:
            raise ConfigurationError(
                "CloudEvents need a source that names their producer, such as source='/services/chat'"
            )
        self._registry = registry
        self._decoder = Decoder(registry or _EveryEvent(), max_entry_bytes=max_entry_bytes)
        self._form: Form = form
        self._source = source
        self._new_id = new_id

    @property
    def knows_handlers(self) -> bool:
        """Whether types, payloads and ordering keys are known."""
        return self._registry is not None

    def encode(
        self, domain: str, members: Mapping[str, object], *, now_ms: int
    ) -> tuple[list[bytes], AnyEvent]:
        """Return the fields of an event's entry, names and values in turn, and what the router makes of it.

        Members that are None are left out. Without handlers the event's `data` and `key` are empty.

        Args:
            now_ms: about when the entry will be added, in epoch milliseconds.

        Raises:
            InvalidEvent: the router would dead-letter it; has the reason and names the field.
        """
        fields = _plain(members) if self._form == "fields" else self._cloud_event(self._form, members)
        try:
            _, decoded = self._decoder.decode(domain, Entry(domain, f"{now_ms}-0", fields))
        except InvalidEvent as error:
            if error.reason == "unknown_type" and self._registry is not None:
                raise InvalidEvent(f"{error}; {_known(self._registry, domain)}", error.reason) from None
            raise
        return fields, decoded

    def _cloud_event(self, mode: cloudevents.Mode, members: Mapping[str, object]) -> list[bytes]:
        head = {"id": self._new_id(), "source": self._source}
        data = _json_members(members.get("data"))
        for name, value in members.items():
            if name not in _BESIDE_DATA and value is not None:
                data[name] = _json_value(name, value)
        for name in ("id", "type", "traceparent"):
            if (value := members.get(name)) is None:
                value = data.get(name)
            if value is not None:
                head[name] = check_identifier(name, _json_value(name, value))
        if "type" not in head:
            raise InvalidEvent("field 'type' is missing")
        moment = members.get("timestamp")
        if moment is None:
            moment = data.get("timestamp")
        try:
            return cloudevents.written(mode, head, None if moment is None else _time_ms(moment), data)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidEvent(f"the event is no JSON: {error}") from None


def registry_of(handlers: HandlerRegistry | Iterable[EventHandler] | None) -> HandlerRegistry | None:
    """Return the registry of these handlers; None stays None."""
    if handlers is None or isinstance(handlers, HandlerRegistry):
        return handlers
    registry = HandlerRegistry()
    for handler in handlers:
        registry.register(handler)
    return registry


def wire_value(value: object) -> bytes:
    """Return the bytes a field's value is sent as.

    Text as it is, numbers as decimals, times in ISO 8601; objects and lists become JSON.

    Raises:
        TypeError, ValueError: it has no such form.
    """
    if type(value) is str:
        return value.encode("utf-8", "surrogateescape")
    if type(value) is int:
        return b"%d" % value
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return float.__repr__(value).encode()
    if not isinstance(value, str):
        value = msgspec.to_builtins(value, str_keys=True)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return msgspec.json.encode(value)


class _Anything(msgspec.Struct):
    """A payload that asks for nothing."""


class _EveryType(dict[str, Route]):
    """A route for whatever type is asked for."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    def get(self, name: str, default: Any = None) -> Route:
        route = super().get(name)
        if route is None:
            event_type = name.removeprefix(f"{self._domain}:")
            route = Route(self._domain, event_type, (name,), _ANYTHING, _unhandled, "")
            if len(self) < _MOST_KEPT:
                self[name] = route
        return route


class _EveryEvent(HandlerRegistry):
    """Stands for handlers that are not known here: takes every type."""

    def names(self, domain: str) -> Mapping[str, Route]:
        """Return a route for every name."""
        names = self._by_name.get(domain)
        if names is None:
            names = _EveryType(domain)
            if len(self._by_name) < _MOST_KEPT:
                self._by_name[domain] = names
        return names


_ANYTHING = PayloadType(_Anything)


async def _unhandled(*_: object) -> None:
    raise NotImplementedError


def _known(registry: HandlerRegistry, domain: str) -> str:
    types = registry.routes(domain)
    return f"it has {', '.join(types)}" if types else f"the handlers are for {', '.join(registry.domains)}"


def members_of(event: ProducedEvent) -> Mapping[str, object]:
    """Return an event's members by name. Raises InvalidEvent for what is no event."""
    if type(event) is dict or isinstance(event, Mapping):
        return event
    if not isinstance(event, msgspec.Struct):
        raise InvalidEvent(f"an event is a mapping or a msgspec.Struct, not {type(event).__name__}")
    members: dict[str, object] = msgspec.to_builtins(event)
    return members


def _plain(members: Mapping[str, object]) -> list[bytes]:
    fields: list[bytes] = []
    for name, value in members.items():
        if value is None:
            continue
        try:
            fields.append(name.encode("utf-8", "surrogateescape"))
            fields.append(wire_value(value))
        except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidEvent(f"field {shortened(name)} cannot be sent: {error}") from None
    moment = members.get("timestamp")
    if type(moment) is int and 0 <= moment < 10**9:
        # Text of eight digits is a date (20240115); of ten it is milliseconds.
        fields[fields[::2].index(b"timestamp") * 2 + 1] = b"%010d" % moment
    return fields


def _json_members(data: object) -> dict[str, object]:
    if data is None:
        return {}
    if isinstance(data, Mapping):
        return dict(data)
    if isinstance(data, bytes | str):
        return json_object("data", data)
    raise InvalidEvent("field 'data' must be a JSON object")


def _json_value(name: str, value: object) -> object:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InvalidEvent(f"field {name!r} is not UTF-8") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidEvent(f"field {name!r} is not a finite number")
    return value


def _time_ms(moment: object) -> int:
    try:
        if isinstance(moment, datetime):
            return to_milliseconds(moment)
        return parse_time(moment.decode() if isinstance(moment, bytes) else moment)
    except ValueError as error:
        raise InvalidEvent(f"field 'timestamp': {error}") from None
