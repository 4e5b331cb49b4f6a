"""Handlers are tested in three lines, with or without a running loop."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime

import msgspec
import pytest

from event_router import ConfigurationError, Event, EventHandler, Identifier, Reject, StateTransaction, on
from event_router.core.keys import KeyNames
from event_router.testing import DeadLettered, State, apply, event


class Ride(msgspec.Struct):
    """A bike was ridden."""

    bike_id: Identifier
    metres: int = 0
    tags: list[str] = []


class BikeHandler(EventHandler):
    """Ten lines, as in the README."""

    domain = "bikes"

    @on("ridden")
    async def ridden(self, event: Event[Ride], state: StateTransaction) -> None:
        """Add the distance up."""
        if event.data.metres < 0:
            raise Reject("nobody rides backwards")
        bike = state.entity("bike", event.data.bike_id)
        bike.increment("metres", event.data.metres)
        bike.set_latest(last_ridden=event.time)

    @on("slow")
    async def slow(self, event: Event[Ride], state: StateTransaction) -> None:
        """Waits for something real."""
        await asyncio.sleep(0)
        state.entity("bike", event.data.bike_id).increment("slow")

    @on("failing")
    async def failing(self, event: Event[Ride], state: StateTransaction) -> None:
        """The router would try it again."""
        raise ConnectionError("the dependency is down")

    @on("contradicting")
    async def contradicting(self, event: Event[Ride], state: StateTransaction) -> None:
        """Sets a field whatever happens, and once."""
        state.entity("bike", event.data.bike_id).set(a=1)
        state.once("m").entity("bike", event.data.bike_id).set(a=2)

    @on("told")
    async def told(self, event: Event[Ride], state: StateTransaction) -> None:
        """Emits, publishes and expires."""
        state.emit("events:other", bike=event.data.bike_id)
        state.publish("bikes", {"bike": event.data.bike_id})
        bike = state.entity("bike", event.data.bike_id)
        bike.set(tags=",".join(event.data.tags))
        bike.expire(60)


class CarHandler(BikeHandler):
    """Another domain."""

    domain = "cars"


def test_three_lines() -> None:
    state = apply(BikeHandler(), [event("bikes", "ridden", bike_id="1", metres=500)])
    assert state["state:bike:1"]["metres"] == "500"


def test_events_add_to_what_is_there() -> None:
    rides = [event("bikes", "ridden", bike_id="1", metres=metres) for metres in (1, 2)]
    first = apply(BikeHandler(), rides)
    second = apply(BikeHandler(), rides, first)
    assert (first["state:bike:1"]["metres"], second["state:bike:1"]["metres"]) == ("3", "6")
    assert apply(BikeHandler(), rides, {"state:bike:1": {"metres": "39"}})["state:bike:1"]["metres"] == "42"


def test_a_redelivered_entry_counts_once() -> None:
    ride = event("bikes", "ridden", entry_id="1800000000000-0", bike_id="1", metres=5)
    state = apply(BikeHandler(), [ride, ride])
    assert apply(BikeHandler(), [ride], state)["state:bike:1"]["metres"] == "5"


def test_dead_letters_say_why() -> None:
    events = [
        event("bikes", "ridden", metres=1),
        event("bikes", "stolen", bike_id="1"),
        event("bikes", "ridden", bike_id="1", metres=-1),
        event("bikes", "contradicting", bike_id="1"),
        event("bikes", "ridden", bike_id="1", metres=2**63),
    ]
    state = apply(BikeHandler(), events)
    assert dict(state) == {}
    assert [letter.reason for letter in state.dead_letters] == [
        "invalid",
        "unknown_type",
        "rejected",
        "invalid",
        "invalid",
    ]
    assert state.dead_letters[0] == DeadLettered(events[0], "invalid", "field 'bike_id' is missing")
    assert state.dead_letters[2].error == "nobody rides backwards"


def test_what_would_be_tried_again_comes_out() -> None:
    with pytest.raises(ConnectionError, match="the dependency is down"):
        apply(BikeHandler(), [event("bikes", "failing", bike_id="1")])


def test_emissions_messages_and_times_to_live() -> None:
    state = apply(BikeHandler(), [event("bikes", "told", data={"bike_id": "1", "tags": ["a", "b"]})])
    assert state.entries("events:other") == [{"bike": "1"}]
    assert state.messages("bikes") == [{"timestamp": "2026-01-01T00:00:00.000Z", "bike": "1"}]
    assert state["state:bike:1"] == {"tags": "a,b"}
    assert (state.ttl_s("state:bike:1"), state.ttl_s("state:bike:2")) == (60, None)
    assert (state.entries("none"), state.messages("none")) == ([], [])


class TestTime:
    def last_ridden(self, **fields: object) -> str:
        state = apply(BikeHandler(), [event("bikes", "ridden", bike_id="1", **fields)])
        assert state.dead_letters == []
        return state["state:bike:1"]["last_ridden"]

    def test_is_the_producer_s(self) -> None:
        assert self.last_ridden(timestamp="2031-05-06T07:08:09Z") == "2031-05-06T07:08:09.000Z"
        assert self.last_ridden(timestamp=datetime(2031, 5, 6, tzinfo=UTC)) == "2031-05-06T00:00:00.000Z"
        assert self.last_ridden(timestamp=date(2031, 5, 6)) == "2031-05-06T00:00:00.000Z"
        assert self.last_ridden(data={"timestamp": "2031-05-06"}) == "2031-05-06T00:00:00.000Z"
        assert self.last_ridden(timestamp=0) == "1970-01-01T00:00:00.000Z"

    def test_or_the_entry_s(self) -> None:
        assert self.last_ridden(entry_id="1800000000000-0") == "2027-01-15T08:00:00.000Z"
        assert self.last_ridden() == "2026-01-01T00:00:00.000Z"

    def test_in_the_future_is_refused_as_the_router_does(self) -> None:
        late = event("bikes", "ridden", bike_id="1", entry_id="1-0", timestamp="2031-05-06")
        assert [letter.reason for letter in apply(BikeHandler(), [late]).dead_letters] == ["invalid"]


def test_several_handlers() -> None:
    events = [event(domain, "ridden", bike_id="1", metres=1) for domain in ("bikes", "cars")]
    assert apply([BikeHandler(), CarHandler()], events)["state:bike:1"]["metres"] == "2"


def test_other_names() -> None:
    ride = event("bikes", "ridden", bike_id="1", metres=1)
    assert list(apply(BikeHandler(), [ride], names=KeyNames(state_prefix="app"))) == ["app:bike:1"]


def test_an_event_of_a_domain_without_handler_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="'planes'"):
        apply(BikeHandler(), [event("planes", "flown")])


def test_a_handler_may_wait() -> None:
    state = apply(BikeHandler(), [event("bikes", "slow", bike_id="1")])
    assert state["state:bike:1"]["slow"] == "1"


async def test_it_works_inside_a_running_loop_too() -> None:
    state = apply(BikeHandler(), [event("bikes", "slow", bike_id="1")])
    assert state["state:bike:1"]["slow"] == "1"


def test_the_state_is_a_mapping_that_says_what_it_holds() -> None:
    state = State({"k": {"a": "1"}})
    assert (len(state), list(state), state["k"], state) == (1, ["k"], {"a": "1"}, {"k": {"a": "1"}})
    assert repr(state) == "<State {'k': {'a': '1'}} 0 dead letters>"
    with pytest.raises(KeyError):
        state["absent"]
