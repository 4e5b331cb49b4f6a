"""Handlers of messages: which names they are for, what they take, and how they are run."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from event_router.core.errors import ConfigurationError
from event_router.core.retry import RetryPolicy
from event_router.messaging.buffer import Arrived
from event_router.messaging.messages import Gap, Message, MessageDecoder
from event_router.messaging.rare_warnings import RareWarnings
from event_router.messaging.receiving import Receiving
from event_router.messaging.subscriptions import Key, Name, key_of

HandlerFunction = Callable[..., Awaitable[object]]
GapHandler = Callable[[Gap], Awaitable[object]]

_UNTYPED = (inspect.Parameter.empty, Any, dict, object)


class Handler:
    """A coroutine function that takes a message's data, and the channel if it has a second parameter.

    The annotation of the first parameter says what the data is decoded to: any type msgspec knows; `dict`
    or nothing for a dict; `Message` for the whole message with a dict in it.

    Raises:
        ConfigurationError: it is no coroutine function, has other parameters, or an annotation that cannot
            be found.
    """

    def __init__(self, function: HandlerFunction, data_type: Any, default_type: Any, max_bytes: int) -> None:
        self.label = getattr(function, "__qualname__", type(function).__qualname__)
        self._function = function
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"handler {self.label} must be an async function")
        parameters = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.default is parameter.empty
        ]
        if not 1 <= len(parameters) <= 2:
            raise ConfigurationError(
                f"handler {self.label} must take a message, or a message and its channel;"
                f" it takes {len(parameters)} arguments"
            )
        self._takes_channel = len(parameters) == 2
        found = data_type if data_type is not None else _annotation(function, parameters[0], self.label)
        self._takes_message = found is Message
        untyped = found in _UNTYPED or typing.get_origin(found) is dict
        self.decoder = MessageDecoder(
            None if self._takes_message else default_type if untyped else found, max_bytes=max_bytes
        )

    def __repr__(self) -> str:
        return f"<Handler {self.label}>"

    async def run(self, message: Message) -> None:
        """Call it."""
        given: Any = message if self._takes_message else message.data
        await (self._function(given, message.channel) if self._takes_channel else self._function(given))


def _annotation(function: HandlerFunction, parameter: inspect.Parameter, label: str) -> Any:
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    try:
        return typing.get_type_hints(function)[parameter.name]
    except NameError as error:
        raise ConfigurationError(
            f"handler {label}: the type {annotation!r} is not known here ({error}); name it with data_type="
        ) from None


class Handlers:
    """The handlers of a subscriber, run one after another, each with a time limit.

    Args:
        timeout_s: how long a handler may run for one message, in seconds.
        pauses: how often it is run, and what lies between, where an error means `retry`.
    """

    def __init__(
        self,
        receiving: Receiving,
        *,
        timeout_s: float,
        pauses: RetryPolicy,
        monotonic: Callable[[], float],
    ) -> None:
        self._receiving = receiving
        self._timeout_s = timeout_s
        self._pauses = pauses
        self._monotonic = monotonic
        self._warnings = RareWarnings(monotonic)
        self._handlers: dict[Key, list[Handler]] = {}
        self.names: dict[Key, Name] = {}
        self.for_gaps: list[GapHandler] = []

    def add(self, names: Iterable[Name], handler: Handler) -> None:
        """Have a handler run for what these names bring."""
        for name in names:
            self.names[key_of(name)] = name
            self._handlers.setdefault(key_of(name), []).append(handler)

    async def handle(self, arrived: Arrived) -> None:
        """Run the handlers of a message. Raises their error, or UndecodableMessage, where it means `stop`."""
        receiving, counted = self._receiving, False
        label = receiving.channels.label(arrived.channel)
        handlers = self._handlers.get(arrived.subscription, ())
        if not handlers:
            receiving.observer.dropped(label, 1)
        for handler in handlers:
            message = receiving.decoded(arrived, handler.decoder)
            if message is None:
                continue
            if not counted:
                counted = True
                receiving.observer.received(label, message.type)
            await self._run(handler, message, label)

    async def tell_gap(self, gap: Gap) -> None:
        """Run the handlers of gaps. Raises their error where it means `stop`."""
        for function in self.for_gaps:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await function(gap)
            except Exception as error:
                if self._receiving.on_error.action("handler", error) == "stop":
                    raise
                self._warnings.warn(f"a handler of gaps failed: {type(error).__name__}: {error}")

    async def _run(self, handler: Handler, message: Message, label: str) -> None:
        observer, attempt = self._receiving.observer, 0
        while True:
            attempt += 1
            began = self._monotonic()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await handler.run(message)
                return
            except Exception as error:
                failure = error
            finally:
                observer.processed(label, handler.label, self._monotonic() - began)
            observer.handler_failed(label, handler.label)
            action = self._receiving.on_error.action("handler", failure)
            if action == "stop":
                raise failure
            if action == "skip" or self._pauses.exhausted(attempt):
                observer.dropped(label, 1)
                self._warnings.warn(
                    f"handler {handler.label} failed, a message of {label} is skipped:"
                    f" {type(failure).__name__}: {failure}"
                )
                return
            await asyncio.sleep(self._pauses.delay_ms(attempt) / 1000)
