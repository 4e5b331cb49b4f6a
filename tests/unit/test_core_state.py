"""What a handler reads and records through its transaction."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from event_router.core.effects import Newest, Once, UnitOfWork
from event_router.core.errors import InvalidState, StateError
from event_router.core.event import Event
from event_router.core.hash_effects import LATEST, MAXIMUM
from event_router.core.keys import KeyNames
from event_router.core.state import StateReader, StateTransaction

EVENT: Event[None] = Event(
    id="1767225600000-7",
    stream="events:bikes",
    domain="bikes",
    type="ridden",
    key="b1",
    data=None,
    time_ms=1_767_225_600_123,
)
VERSION = "1767225600123:1767225600000-7@events:bikes"


class Stored(StateReader):
    """What is stored, and what was asked of it."""

    def __init__(self, **fields: str) -> None:
        self.fields = fields
        self.touched: list[str] = []
        self.read_fields: list[tuple[str, str]] = []

    def touch(self, key: str) -> None:
        self.touched.append(key)

    async def read(self, key: str, field: str) -> str | None:
        self.read_fields.append((key, field))
        return self.fields.get(field)


def transaction(reader: StateReader | None = None) -> tuple[StateTransaction, UnitOfWork]:
    unit = UnitOfWork()
    return StateTransaction(EVENT, KeyNames(), unit, reader or Stored()), unit


class TestReads:
    def test_what_was_read_is_noted_once(self) -> None:
        stored = Stored(a="1")
        state, unit = transaction(stored)

        async def handle() -> None:
            bike = state.entity("bike", "b1")
            assert await bike.get("a") == "1"
            assert await bike.get("a", "b", "a") == ("1", None, "1")
            assert await state.entity("bike", "b1").get("b") is None

        asyncio.run(handle())
        assert unit.hashes["state:bike:b1"].reads == {"a": "1", "b": False}
        assert stored.read_fields == [("state:bike:b1", "a"), ("state:bike:b1", "b")]
        assert set(stored.touched) == {"state:bike:b1"}

    def test_a_read_sees_what_the_unit_recorded(self) -> None:
        stored = Stored(n="5", m="5", s="old", d="old")
        state, unit = transaction(stored)

        async def handle() -> None:
            bike = state.entity("bike", "b1")
            bike.set(s="new", at=datetime(2026, 1, 1, tzinfo=UTC))
            bike.increment("n", 2)
            bike.increment("new", 3)
            bike.maximum(m=9, low=-1)
            bike.delete("d")
            assert await bike.get("s", "at", "n", "new", "d", "m", "low") == (
                "new",
                "2026-01-01T00:00:00.000Z",
                "7",
                "3",
                None,
                "9",
                "-1",
            )
            bike.delete()
            bike.increment("n", 4)
            bike.maximum(m=1)
            assert await bike.get("n", "m", "s") == ("4", "1", None)

        asyncio.run(handle())
        assert unit.hashes["state:bike:b1"].reads == {"n": "5", "new": False, "m": "5", "low": False}
        assert ("state:bike:b1", "s") not in stored.read_fields, "what was set needs no read"

    def test_an_incremented_field_that_holds_no_integer(self) -> None:
        state, _ = transaction(Stored(n="007"))

        async def handle() -> None:
            bike = state.entity("bike", "b1")
            bike.increment("n")
            with pytest.raises(InvalidState, match="'n' of key 'state:bike:b1' holds no 64-bit integer"):
                await bike.get("n")

        asyncio.run(handle())


class TestEffects:
    def test_are_recorded_under_the_keys_of_the_contract(self) -> None:
        state, unit = transaction()
        bike = state.entity("bike", "b:1")
        bike.set(a=1)
        bike.set_latest(b="x")
        bike.maximum(c=3)
        bike.delete("d")
        bike.expire(1.5)
        state.statistics("daily", date(2026, 1, 1)).increment("rides")
        state.emit("events:other", maxlen=5, a=1)
        effects = unit.hashes["state:bike:b:1"]
        assert effects.changes == {"a": "1", "b": (LATEST, VERSION, "x"), "c": (MAXIMUM, "3"), "d": False}
        assert effects.ttl_ms == 1500
        assert unit.hashes["stats:daily:2026-01-01"].changes == {"rides": 1}
        (emission,) = unit.emissions
        assert (emission.stream, emission.fields, emission.maxlen) == ("events:other", ["a", "1"], "5")

    def test_statistics_are_not_touched(self) -> None:
        stored = Stored()
        state, _ = transaction(stored)
        state.statistics("daily", "x").increment("n")
        assert stored.touched == []

    @pytest.mark.parametrize("entity_type", ["", "a:b", "ä", "a b", "-a", "a\n"])
    def test_an_entity_type_is_a_word(self, entity_type: str) -> None:
        state, _ = transaction()
        with pytest.raises(StateError):
            state.entity(entity_type, "1")
        with pytest.raises(StateError):
            state.statistics(entity_type, "1")

    @pytest.mark.parametrize("seconds", [0, -1, 0.0001, float("nan"), 1e18])
    def test_a_time_to_live_that_redis_would_refuse_is_refused_here(self, seconds: float) -> None:
        state, unit = transaction()
        with pytest.raises(StateError):
            state.entity("bike", "1").expire(seconds)
        with pytest.raises(StateError):
            state.once("m", ttl_s=seconds)
        with pytest.raises(StateError):
            state.job("j").step(stage="s", status="s", ttl_s=seconds)
        assert unit.branches == []


class TestConditions:
    def test_a_mark(self) -> None:
        state, unit = transaction()
        once = state.once("m", ttl_s=60)
        once.entity("bike", "1").set(a=1)
        once.statistics("daily", "x").increment("n")
        once.emit("s", a=1)
        once.publish("c", {"a": 1})
        (branch,) = unit.branches
        assert isinstance(branch, Once)
        assert (branch.mark, branch.ttl_ms) == ("event-router:mark:m", 60_000)
        assert set(branch.hashes) == {"state:bike:1", "stats:daily:x"}
        assert [emission.stream for emission in branch.emissions] == ["s", "outbox:bikes"]
        assert not any(unit.hashes.values())
        assert not unit.emissions


class TestJob:
    def test_a_step_is_a_record_with_its_message(self) -> None:
        state, unit = transaction()
        state.job("j").step(stage="s", status="running", seq=4, progress=30, message="näher")
        (step,) = unit.branches
        assert isinstance(step, Newest)
        assert (step.key, step.version) == ("bikes:state:j", "0:4:1767225600000-7@events:bikes")
        assert step.ttl_ms == 3_600_000
        assert step.record == {
            "stage": "s",
            "status": "running",
            "progress": "30",
            "seq": "4",
            "message": "näher",
            "result": "",
            "updated_at": "2026-01-01T00:00:00.123Z",
        }
        (emission,) = step.emissions
        channel, kind, message = emission.fields[1::2]
        assert emission.fields[::2] == ["channel", "type", "message"]
        assert (emission.stream, emission.maxlen, channel, kind) == (
            "outbox:bikes",
            "100000",
            "sse:events:j",
            "ridden",
        )
        assert json.loads(message) == {
            "timestamp": "2026-01-01T00:00:00.123Z",
            "type": "ridden",
            "domain": "bikes",
            "job_id": "j",
            "stage": "s",
            "status": "running",
            "progress": 30,
            "seq": 4,
            "message": "näher",
        }
        assert "ä" in message, "UTF-8, not escaped"

    def test_a_terminal_step(self) -> None:
        state, unit = transaction()
        state.job("j").step(stage="s", status="done", terminal=True, ttl_s=5)
        (step,) = unit.branches
        assert isinstance(step, Newest)
        assert (step.version, step.ttl_ms) == ("1:0:1767225600000-7@events:bikes", 5000)

    def test_a_negative_number_is_refused(self) -> None:
        state, _ = transaction()
        with pytest.raises(StateError, match="seq -1"):
            state.job("j").step(stage="s", status="s", seq=-1)


class TestMessages:
    def test_have_the_event_s_time_unless_they_bring_one(self) -> None:
        state, unit = transaction()
        state.publish("c", {"a": 1})
        state.publish("c", {"timestamp": "then"})
        first, second = (json.loads(emission.fields[5]) for emission in unit.emissions)
        assert first == {"timestamp": "2026-01-01T00:00:00.123Z", "a": 1}
        assert second == {"timestamp": "then"}

    @pytest.mark.parametrize("value", [object(), "\ud800", {1, object()}])
    def test_that_are_no_json_are_refused(self, value: object) -> None:
        state, _ = transaction()
        with pytest.raises(StateError, match="channel 'c'"):
            state.publish("c", {"a": value})


class TestNames:
    @pytest.mark.parametrize("name", [None, 5, b"a"])
    def test_that_are_no_text_are_refused(self, name: Any) -> None:
        state, unit = transaction()
        with pytest.raises(StateError):
            state.entity("bike", "b1").increment(name)
        with pytest.raises(StateError):
            state.entity("bike", "b1").delete(name)
        with pytest.raises(StateError):
            state.statistics("daily", "d").increment(name)
        with pytest.raises(StateError):
            state.emit(name, a=1)
        assert not any(unit.hashes.values())
        assert not unit.emissions


class TestPresence:
    def test_changes_are_recorded_in_their_order(self) -> None:
        state, unit = transaction()
        state.presence("7", "online", connection="phone")
        state.presence("7", "offline")
        at = str(EVENT.time_ms)
        assert unit.presence == [("7", "phone", "online", at), ("7", False, "offline", at)]

    @pytest.mark.parametrize(
        ("user", "connection"),
        [(None, None), (7, None), (b"7", None), ("\ud800", None), ("7", 5), ("7", b"x")],
    )
    def test_what_is_no_text_is_refused(self, user: Any, connection: Any) -> None:
        state, unit = transaction()
        with pytest.raises(StateError):
            state.presence(user, "online", connection=connection)
        assert unit.presence is None

    def test_so_is_an_unknown_status(self) -> None:
        state, unit = transaction()
        with pytest.raises(StateError, match="none of online"):
            state.presence("7", "asleep")  # type: ignore[arg-type]
        assert unit.presence is None
