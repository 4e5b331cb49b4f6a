"""A stream whose key is no stream: what Redis refuses there keeps no other stream back."""

from __future__ import annotations

from typing import Any

import pytest

from event_router.core.errors import RedisRefused
from event_router.core.event import Event
from event_router.core.state import StateTransaction
from event_router.runtime import groups
from event_router.runtime.signals import StopRequest
from tests.unit.runtime_assembled import MIN_IDLE_MS, Runtime, ride
from tests.unit.runtime_fakes import BIKES, CARS, ME, entry, entry_id, settled, until


class Bad(Runtime):
    """A runtime whose stream of bikes is none any more."""

    def __init__(self, handle: Any = ride, **options: Any) -> None:
        super().__init__(handle, **options)
        for port, methods in (
            (self.claims, ("due", "take", "take_ids", "count_start", "set", "own_ids")),
            (self.group_port, ("ensure", "retain", "remove_dead", "leave")),
        ):
            for method in methods:
                setattr(port, method, _refused_on_bikes(getattr(port, method)))

    def refusals(self) -> set[str]:
        return {what for what, _ in self.reports.of("refused")}


def _refused_on_bikes(method: Any) -> Any:
    async def call(stream: str, *args: Any, **named: Any) -> Any:
        if stream == BIKES:
            raise RedisRefused("WRONGTYPE")
        return await method(stream, *args, **named)

    return call


async def _no_figures() -> None:
    raise RedisRefused("WRONGTYPE")


class Begun:
    """Notes whose handler begins; it fails if the event says so."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        self.ids.append(event.id)
        if event.data.note == "fail":
            raise ConnectionError("no answer")


async def test_missing_groups_of_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "REFUSED_PAUSE_S", 0)
    async with Bad(services=()) as runtime:
        await runtime.groups.recreate(BIKES)
        assert runtime.group_port.ensured == [CARS]
        assert runtime.refusals() == {f"group on {BIKES}"}
        assert runtime.connectivity.up


async def test_others_are_trimmed_also_without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bad(services=()) as runtime:
        runtime.group_port.trims = [7]
        monkeypatch.setattr(runtime.housekeeper, "_refresh", _no_figures)
        with pytest.raises(RedisRefused):
            await runtime.housekeeper.run_once()
        assert runtime.reports.of("retained") == [(CARS, 7)]


async def test_leases_of_others_are_renewed() -> None:
    async with Bad(services=()) as runtime:
        runtime.accept(entry(1), entry(2, stream=CARS))
        runtime.claims.pending[CARS][entry_id(2)].idle_ms = 20_000
        await runtime.leases.renew()
        assert runtime.claims.state(2, CARS) == (ME, 0, 1)


async def test_what_others_left_is_claimed() -> None:
    async with Bad() as runtime:
        runtime.claims.add(entry(1, deliveries=0, stream=CARS))
        runtime.claimer.own_taken.set()
        runtime.claimer.start()
        await until(lambda: runtime.commits.batches == [[entry_id(1)]])


async def test_suspects_of_others_run() -> None:
    begun = Begun()
    async with Bad(begun, services=("sequencer", "committer", "suspects")) as runtime:
        runtime.claims.add(entry(2, stream=CARS), owner=ME, idle_ms=0)
        runtime.suspects.add([entry(1), entry(2, stream=CARS)])
        await until(lambda: begun.ids == [entry_id(2)])
        assert not len(runtime.suspects)


async def test_retries_of_others_are_scheduled_and_started() -> None:
    begun = Begun()
    async with Bad(begun) as runtime:
        runtime.accept(entry(1, note="fail"), entry(2, note="fail", stream=CARS))
        await until(lambda: len(begun.ids) == 2)
        await settled()
        await runtime.retries.run_once()
        assert runtime.claims.state(2, CARS) == (ME, MIN_IDLE_MS - 1_000, 1)
        runtime.time.pass_(2)
        await runtime.retries.run_once()
        await until(lambda: begun.ids[2:] == [entry_id(2)])
        assert (BIKES, entry_id(1)) in runtime.failures


async def test_at_the_end_others_are_handed_over() -> None:
    async with Bad(services=()) as runtime:
        runtime.claims.add(entry(2, stream=CARS, deliveries=3), owner=ME, idle_ms=0)
        runtime.suspects.add([entry(2, stream=CARS, deliveries=3)])
        assert not await runtime.router._stop(StopRequest())
        assert runtime.claims.state(2, CARS) == (ME, MIN_IDLE_MS, 3)
        assert runtime.group_port.left == [CARS]
