"""The router's life: prepare, run, quiet, stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from event_router.core.errors import ConfigurationError, EventRouterError, NoGroup
from event_router.core.event import Event
from event_router.core.outcome import Answer, Verdict
from event_router.core.state import StateTransaction
from event_router.runtime.signals import StopRequest
from tests.unit.runtime_assembled import MIN_IDLE_MS, Runtime
from tests.unit.runtime_fakes import (
    AWAY,
    BIKES,
    CARS,
    ME,
    FakeClaims,
    Pending,
    entry,
    entry_id,
    settled,
    until,
)


class Held:
    """A handler that waits until it is let go, unless its event says otherwise."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.begun: list[str] = []

    async def __call__(self, event: Event[Any], state: StateTransaction) -> None:
        self.begun.append(event.id)
        if event.data.note == "fail":
            raise ConnectionError("no answer")
        if event.data.note != "quick":
            await self.let_go.wait()


class Life:
    """A running router, and the request that ends it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.request = StopRequest()
        self.task = asyncio.create_task(runtime.router.run(self.request))

    async def joined(self) -> Life:
        await until(lambda: self.runtime.router.readiness()["group"] == "joined")
        await until(lambda: self.runtime.reads.calls)
        return self

    async def takes(self, *entries: Any) -> None:
        """Give the router entries to read, pending for it from then on."""
        for one in entries:
            self.runtime.claims.add(one, owner=ME, idle_ms=0)
        self.runtime.reads.add(*entries)
        await settled()

    async def stopped(self) -> bool:
        self.request.ask()
        return await self.task


def left_by(claims: FakeClaims) -> dict[str, tuple[int, int]]:
    """(idle ms, deliveries) by id of what this consumer leaves pending."""
    return {
        one: (item.idle_ms, item.deliveries)
        for items in claims.pending.values()
        for one, item in items.items()
        if item.owner == ME
    }


def settles(runtime: Runtime) -> None:
    """Let a commit take its entries off the pending list."""
    send = runtime.commits.send

    async def settling(packed: bytes) -> Any:
        answers = await send(packed)
        for part in runtime.commits.packed[int(packed)]:
            runtime.claims.pending[part.settlement.stream].pop(part.settlement.id, Pending())
        return answers

    runtime.commits.send = settling  # type: ignore[method-assign]


class TestStart:
    async def test_it_joins_and_is_ready(self) -> None:
        async with Runtime(services=()) as runtime:
            life = Life(runtime)
            assert runtime.router.readiness()["ready"] is False
            await life.joined()
            assert runtime.router.readiness() == {
                "ready": True,
                "redis": "up",
                "group": "joined",
                "draining": False,
                "in_flight": 0,
                "refused": {},
            }
            assert runtime.group_port.ensured == [BIKES, CARS]
            assert await life.stopped()

    async def test_it_waits_for_a_redis_that_is_away(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.check_errors = [AWAY, AWAY]
            life = await Life(runtime).joined()
            assert len(runtime.reports.of("outage_began")) == 1
            assert await life.stopped()

    async def test_stopped_before_redis_appears_it_ends(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.check_errors = [AWAY] * 100_000
            life = Life(runtime)
            await settled()
            assert await life.stopped()

    async def test_a_server_that_cannot_be_used_ends_it(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.check_errors = [ConfigurationError("too old")]
            with pytest.raises(ConfigurationError):
                await Life(runtime).task

    async def test_it_reads_nothing_before_its_own_entries_are_taken(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.claims.errors["take"] = [AWAY] * 100_000
            life = Life(runtime)
            await settled()
            assert not runtime.reads.calls
            assert runtime.router.readiness()["ready"] is False
            assert await life.stopped()

    async def test_a_service_that_fails_ends_it_with_the_cause(self) -> None:
        async with Runtime(services=(), grace_s=0.4) as runtime:
            life = await Life(runtime).joined()
            runtime.commits.steps = [ValueError("a mistake")]
            await life.takes(entry(1, note="quick"))
            with pytest.raises(EventRouterError, match="commit") as caught:
                await life.task
            assert isinstance(caught.value.__cause__, ValueError)


class TestStop:
    async def test_idle_it_stops_at_once_and_leaves(self) -> None:
        async with Runtime(services=(), grace_s=1_000) as runtime:
            life = await Life(runtime).joined()
            assert await life.stopped()
            assert runtime.group_port.left == [BIKES, CARS]
            assert runtime.reads.unblocked

    async def test_what_runs_is_finished_and_committed(self) -> None:
        held = Held()
        async with Runtime(held, services=(), grace_s=1_000) as runtime:
            settles(runtime)
            life = await Life(runtime).joined()
            await life.takes(entry(1))
            life.request.ask()
            await settled()
            assert runtime.router.readiness()["draining"] is True
            assert not life.task.done()
            held.let_go.set()
            assert await life.task
            assert runtime.commits.batches == [[entry_id(1)]]
            assert not left_by(runtime.claims)

    async def test_what_has_not_started_is_handed_over_with_its_attempt(self) -> None:
        held = Held()
        async with Runtime(held, concurrency=1, services=(), grace_s=1_000) as runtime:
            settles(runtime)
            life = await Life(runtime).joined()
            await life.takes(entry(1), entry(2, "b2"), entry(3, "b3"))
            life.request.ask()
            await settled()
            held.let_go.set()
            assert await life.task
            assert held.begun == [entry_id(1)]
            assert left_by(runtime.claims) == dict.fromkeys((entry_id(2), entry_id(3)), (MIN_IDLE_MS, 0))

    async def test_what_the_last_read_brings_does_not_start(self) -> None:
        held = Held()
        async with Runtime(held, services=(), grace_s=0.05) as runtime:
            life = await Life(runtime).joined()

            async def unblock() -> None:
                runtime.claims.add(entry(1), owner=ME, idle_ms=0)
                runtime.reads.add(entry(1))

            runtime.reads.unblock = unblock  # type: ignore[method-assign]
            assert await life.stopped()
            assert not held.begun
            assert left_by(runtime.claims) == {entry_id(1): (MIN_IDLE_MS, 0)}

    async def test_after_the_grace_period_the_rest_is_handed_over(self) -> None:
        async with Runtime(Held(), services=(), grace_s=0.4) as runtime:
            life = await Life(runtime).joined()
            await life.takes(entry(1))
            assert await life.stopped()
            assert left_by(runtime.claims) == {entry_id(1): (MIN_IDLE_MS, 0)}
            assert not len(runtime.in_flight)

    async def test_a_second_request_forces_it(self) -> None:
        async with Runtime(Held(), services=(), grace_s=1_000) as runtime:
            life = await Life(runtime).joined()
            await life.takes(entry(1))
            life.request.ask()
            await settled()
            assert not life.task.done()
            life.request.ask()
            assert not await asyncio.wait_for(life.task, 5), "what it had in flight is left"

    async def test_forced_with_nothing_in_flight_leaves_nothing(self) -> None:
        async with Runtime(Held(), services=(), grace_s=1_000) as runtime:
            life = await Life(runtime).joined()
            life.request.ask()
            life.request.ask()
            assert await asyncio.wait_for(life.task, 5)
            assert runtime.group_port.left == [BIKES, CARS]

    async def test_forced_with_nothing_in_flight_it_waits_for_no_frozen_redis(self) -> None:
        async with Runtime(Held(), services=(), grace_s=1_000) as runtime:
            life = await Life(runtime).joined()

            async def frozen(stream: str) -> list[str]:
                await asyncio.Event().wait()
                return []

            runtime.claims.own_ids = frozen  # type: ignore[method-assign]
            life.request.ask()
            await settled()
            life.request.ask()
            assert await asyncio.wait_for(life.task, 5)

    async def test_a_scheduled_retry_keeps_its_schedule(self) -> None:
        async with Runtime(Held(), services=()) as runtime:
            life = await Life(runtime).joined()
            await life.takes(entry(1, note="fail", deliveries=2))
            assert await life.stopped()
            assert left_by(runtime.claims) == {entry_id(1): (MIN_IDLE_MS - 2_000, 2)}

    async def test_held_entries_are_due_at_once(self) -> None:
        async with Runtime(Held(), services=(), grace_s=0.4) as runtime:
            life = await Life(runtime).joined()
            runtime.failures.breakers["bikes"].open = True
            await life.takes(entry(1, deliveries=3))
            assert await life.stopped()
            assert left_by(runtime.claims) == {entry_id(1): (MIN_IDLE_MS, 2)}

    async def test_suspects_keep_their_count(self) -> None:
        held = Held()
        async with Runtime(held, services=(), grace_s=0.4) as runtime:
            for number in (1, 2):
                runtime.claims.add(entry(number, deliveries=3), owner=ME)
            life = await Life(runtime).joined()
            await until(lambda: held.begun)
            assert await life.stopped()
            # The first was running apart: its start is given back. The second keeps what it had.
            assert left_by(runtime.claims) == dict.fromkeys(map(entry_id, (1, 2)), (MIN_IDLE_MS, 3))

    async def test_what_a_cut_off_read_delivered_is_handed_over(self) -> None:
        async with Runtime(Held(), services=()) as runtime:
            life = await Life(runtime).joined()
            runtime.claims.add(entry(9), owner=ME, idle_ms=0)
            assert await life.stopped()
            assert left_by(runtime.claims) == {entry_id(9): (MIN_IDLE_MS, 0)}

    async def test_a_commit_under_way_keeps_its_attempt(self) -> None:
        async with Runtime(Held(), services=(), grace_s=0.4) as runtime:
            life = await Life(runtime).joined()
            runtime.commits.gate.clear()
            await life.takes(entry(1, note="quick"))
            assert not await life.stopped()
            assert left_by(runtime.claims) == {entry_id(1): (MIN_IDLE_MS, 1)}

    async def test_what_waits_for_a_permission_gets_its_attempt_back(self) -> None:
        async with Runtime(Held(), services=(), grace_s=0.4) as runtime:
            life = await Life(runtime).joined()
            runtime.commits.answer = lambda part: Answer(Verdict.DENIED, "run 'hset'")
            await life.takes(entry(1, note="quick"), entry(2, note=""), entry(3, type="unheard_of"))
            await until(lambda: runtime.reports.of("outage_began"))
            assert not await life.stopped()
            left = left_by(runtime.claims)
            assert left.pop(entry_id(3)) == (MIN_IDLE_MS, 1), "what becomes a dead letter shall not run again"
            assert left == dict.fromkeys((entry_id(1), entry_id(2)), (MIN_IDLE_MS, 0))

    async def test_without_redis_it_says_that_not_all_was_handed_over(self) -> None:
        async with Runtime(Held(), services=(), grace_s=0.4) as runtime:
            life = await Life(runtime).joined()
            await life.takes(entry(1))
            runtime.claims.errors["own_ids"] = [AWAY] * 100
            assert not await life.stopped()

    async def test_a_group_missing_on_one_stream_keeps_no_other_back(self) -> None:
        async with Runtime(Held(), services=(), grace_s=0.4) as runtime:
            life = await Life(runtime).joined()
            await life.takes(entry(1, stream=CARS))
            runtime.claims.errors["own_ids"] = [NoGroup(BIKES)]
            await life.stopped()
            assert left_by(runtime.claims) == {entry_id(1): (MIN_IDLE_MS, 0)}

    async def test_a_suspect_about_to_start_keeps_its_count(self) -> None:
        async with Runtime(Held(), services=(), grace_s=0.4) as runtime:
            runtime.claims.errors["count_start"] = [AWAY] * 100_000
            runtime.claims.add(entry(1, deliveries=4), owner=ME)
            life = Life(runtime)
            await until(lambda: ("count_start", BIKES) in runtime.claims.calls)
            assert await life.stopped()
            assert left_by(runtime.claims) == {entry_id(1): (MIN_IDLE_MS, 4)}
