"""Handlers are registered as they are written, and what is wrong with one is said at once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from event_router import ConfigurationError, Event, EventHandler, Identifier, StateTransaction, on
from event_router.core.handler import routes_of
from event_router.core.registry import HandlerRegistry


class Ride(msgspec.Struct):
    bike_id: Identifier


class BikeHandler(EventHandler):
    domain = "bikes"

    @on("ridden", aliases=("bike:moved",))
    @on("pushed")
    async def ridden(self, event: Event[Ride], state: StateTransaction) -> None:
        raise NotImplementedError


class OtherRides(EventHandler):
    domain = "bikes"

    @on("ridden")
    async def anything(self, event: Event[Ride], state: StateTransaction) -> None:
        raise NotImplementedError


class OtherAlias(EventHandler):
    domain = "bikes"

    @on("parked", aliases=("bike:moved",))
    async def parked(self, event: Event[Ride], state: StateTransaction) -> None:
        raise NotImplementedError


class CarHandler(BikeHandler):
    """Inherits its methods for a domain of its own."""

    domain = "cars"


def registry(*handlers: EventHandler) -> HandlerRegistry:
    made = HandlerRegistry()
    for handler in handlers:
        made.register(handler)
    return made


def test_a_method_may_take_several_types_under_several_names() -> None:
    made = registry(BikeHandler())
    assert set(made.routes("bikes")) == {"ridden", "pushed"}
    assert set(made.names("bikes")) == {"ridden", "bikes:ridden", "bike:moved", "pushed", "bikes:pushed"}
    assert made.names("bikes")["bike:moved"].type == "ridden"
    assert made.routes("bikes")["ridden"].payload.struct is Ride


def test_domains_in_the_order_of_registration() -> None:
    made = registry(CarHandler(), BikeHandler())
    assert made.domains == ("cars", "bikes")
    assert made.routes("planes") == made.names("planes") == {}
    assert repr(made) == "<HandlerRegistry cars: 2 types, bikes: 2 types>"


def test_several_handlers_may_share_a_domain() -> None:
    class Parking(EventHandler):
        domain = "bikes"

        @on("parked")
        async def parked(self, event: Event[Ride], state: StateTransaction) -> None:
            raise NotImplementedError

    assert set(registry(BikeHandler(), Parking()).routes("bikes")) == {"ridden", "pushed", "parked"}


@pytest.mark.parametrize(("second", "name"), [(OtherRides, "ridden"), (OtherAlias, "bike:moved")])
def test_two_handlers_for_one_type_are_an_error_that_names_both(
    second: type[EventHandler], name: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry(BikeHandler(), second())
    said = str(caught.value)
    assert f"two handlers take bikes {name!r}" in said
    assert "BikeHandler" in said
    assert second.__name__ in said


def test_a_handler_twice_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="two handlers"):
        registry(BikeHandler(), BikeHandler())


class NoDomain(EventHandler):
    @on("x")
    async def x(self, event: Event[Ride], state: StateTransaction) -> None:
        raise NotImplementedError


class NoTypes(EventHandler):
    domain = "d"


class NoAnnotation(EventHandler):
    domain = "d"

    @on("x")
    async def x(self, event, state) -> None:  # type: ignore[no-untyped-def]
        raise NotImplementedError


class UnknownAnnotation(EventHandler):
    domain = "d"

    @on("x")
    async def x(self, event: Event[Missing], state: StateTransaction) -> None:  # type: ignore[name-defined]  # noqa: F821
        raise NotImplementedError


class NoStruct(EventHandler):
    domain = "d"

    @on("x")
    async def x(self, event: Event[dict[str, Any]], state: StateTransaction) -> None:
        raise NotImplementedError


class NotAsync(EventHandler):
    domain = "d"

    @on("x")  # type: ignore[type-var]
    def x(self, event: Event[Ride], state: StateTransaction) -> None:
        raise NotImplementedError


class OneArgument(EventHandler):
    domain = "d"

    @on("x")
    async def x(self, event: Event[Ride]) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (NoDomain, "names no domain"),
        (NoTypes, "takes no event type"),
        (NoAnnotation, "must annotate its event"),
        (UnknownAnnotation, "its annotations cannot be read"),
        (NoStruct, "must be a msgspec.Struct"),
        (NotAsync, r"NotAsync.x must be `async def`"),
        (OneArgument, r"OneArgument.x must take an event and a state transaction"),
    ],
)
def test_a_malformed_handler_is_named(handler: type[EventHandler], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        list(routes_of(handler()))
