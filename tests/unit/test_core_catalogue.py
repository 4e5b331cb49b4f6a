"""What a catalogue says of handlers of every kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from event_router.core.catalogue import Catalogue, EventInfo, words
from event_router.core.event import Event, Identifier, JsonText, Percent, Text
from event_router.core.handler import EventHandler, on
from event_router.core.registry import HandlerRegistry
from event_router.core.state import StateTransaction


class Point(msgspec.Struct):
    """A place."""

    x: int


class Everything(msgspec.Struct, rename="camel"):
    """A payload with a field of every kind.

    More about it.
    """

    user_id: Identifier
    level: Literal["low", "high"]
    count: Annotated[int, msgspec.Meta(ge=3)]
    ratio: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    when_done: bool
    share: Percent | None = None
    note: Text = "none"
    plain: str = ""
    extra: JsonText | None = None
    points: list[Point] = []
    limits: dict[str, int] = {}


class Impossible(msgspec.Struct):
    code: Annotated[str, msgspec.Meta(pattern="^[0-9]{4}$")]


class Nothing(msgspec.Struct):
    """Nothing at all."""


def catalogue() -> Catalogue:
    async def one(self: Any, event: Event[Everything], state: StateTransaction) -> None:
        """Do one thing.

        And another.
        """

    async def two(self: Any, event: Event[Impossible], state: StateTransaction) -> None: ...

    async def three(self: Any, event: Event[Nothing], state: StateTransaction) -> None:
        """Do nothing."""

    methods = {
        "one": on("one", aliases=("shop:uno",))(one),
        "two": on("two")(two),
        "three": on("three")(three),
    }
    handler = type("Shop", (EventHandler,), {"domain": "shop", **methods})
    registry = HandlerRegistry()
    registry.register(handler())
    return Catalogue.of(registry)


def event(name: str) -> EventInfo:
    [found] = [one for one in catalogue().domains["shop"] if one.type == name]
    return found


def test_fields() -> None:
    found = {field.name: (field.type, field.required, field.default) for field in event("one").fields}
    assert found == {
        "userId": ("identifier", True, None),
        "level": ("one of `high`, `low`", True, None),
        "count": ("integer, at least 3", True, None),
        "ratio": ("number, above 0, below 1", True, None),
        "whenDone": ("`true` or `false`", True, None),
        "share": ("number, 0 to 100", False, None),
        "note": ("text", False, "none"),
        "plain": ("text", False, ""),
        "extra": ("JSON", False, None),
        "points": ("list of JSON object", False, []),
        "limits": ("by name: integer", False, {}),
    }


def test_what_is_said_is_the_first_line() -> None:
    one = event("one")
    assert (one.summary, one.meaning) == ("Do one thing.", "A payload with a field of every kind.")
    assert one.names == ("one", "shop:one", "shop:uno")
    assert event("two").summary == ""


def test_limits_that_the_router_checks_are_in_the_schema() -> None:
    schema = catalogue().schemas["Everything"]["properties"]
    assert schema["userId"]["minLength"] == 1
    assert schema["userId"]["maxLength"] == 512
    assert schema["note"]["maxLength"] == schema["plain"]["maxLength"] == 65_536


def test_examples_are_payloads_or_none() -> None:
    assert event("one").example == {
        "userId": "userId-7",
        "level": "high",
        "count": 3,
        "ratio": 0.5,
        "whenDone": True,
    }
    assert event("two").example is None
    assert event("three").example == {}


def test_words_of_what_has_no_type() -> None:
    assert words({}) == "JSON"
    assert (
        words({"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]})
        == "text or `true` or `false`"
    )
