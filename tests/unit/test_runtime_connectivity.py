"""What each caller experiences with Redis, and what follows for readiness, liveness and time limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from event_router.core.errors import EventRouterError, NoGroup, RedisDenied, RedisRefused
from event_router.core.event import Event
from event_router.core.state import StateTransaction
from event_router.runtime import groups
from event_router.runtime.router import STUCK_AFTER_S
from event_router.runtime.services import Service
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import AWAY, BIKES, ME, entry, settled, until

DENIED = RedisDenied("NOPERM this user may not")
MORE = [DENIED] * 1_000


async def failing(runtime: Runtime, *callers: tuple[str, EventRouterError]) -> None:
    """Note that these roles' calls fail."""
    for role, error in callers:
        await runtime.connectivity.failed(role, error)


class TestAnswers:
    @pytest.mark.parametrize("answer", [NoGroup(BIKES), RedisRefused("WRONGTYPE")])
    async def test_an_error_reply_ends_the_outage_of_who_counts_starts(
        self, answer: EventRouterError
    ) -> None:
        runtime = Runtime()
        runtime.claims.errors["count_start"] = [AWAY, answer]
        with pytest.raises(type(answer)):
            await runtime.starts.start(BIKES, [entry(1)])
        assert runtime.connectivity.up

    async def test_an_error_reply_ends_the_outage_of_who_reads_state(self) -> None:
        async def read(event: Event[Any], state: StateTransaction) -> None:
            await state.entity("bike", event.data.bike_id).get("rides")

        async with Runtime(read) as runtime:
            runtime.state.errors = [AWAY, RedisRefused("ERR")]
            runtime.accept(entry(1))
            await until(lambda: len(runtime.state.reads) == 2)
            await settled(20)
            assert runtime.connectivity.up


class TestEndOfAnOutage:
    async def test_what_is_still_denied_does_not_count_as_part_of_it(self) -> None:
        runtime = Runtime()
        await failing(runtime, ("state", DENIED), ("read", AWAY))
        runtime.time.pass_(100)
        runtime.connectivity.answered("read")
        assert runtime.connectivity.reachable
        assert runtime.connectivity.ended_at == runtime.time.now

    async def test_a_denial_after_silence_ends_it_too(self) -> None:
        runtime = Runtime()
        await failing(runtime, ("read", AWAY))
        runtime.time.pass_(100)
        await failing(runtime, ("read", DENIED))
        assert runtime.connectivity.ended_at == runtime.time.now

    async def test_a_handler_that_waited_for_redis_itself_is_not_out_of_time_at_once(self) -> None:
        async def wait(event: Event[Any], state: StateTransaction) -> None:
            await asyncio.Event().wait()

        async with Runtime(wait) as runtime:
            await failing(runtime, ("state", DENIED), ("read", AWAY))
            [delivery] = runtime.accept(entry(1))
            await until(lambda: delivery.started is not None)
            runtime.time.pass_(100)
            runtime.connectivity.answered("read")
            runtime.dispatcher.cancel_overdue(30)
            cancelled = [delivery.cancellations]
            runtime.time.pass_(31)
            runtime.dispatcher.cancel_overdue(30)
            assert [*cancelled, delivery.cancellations] == [0, 1]


def start(runtime: Runtime) -> Service:
    runtime.claims.errors["count_start"] = [*MORE]
    runtime.claims.add(entry(1, deliveries=0), owner=ME)
    return runtime.claimer


def create(runtime: Runtime) -> Service:
    runtime.claims.errors["take"] = [NoGroup(BIKES)]
    runtime.group_port.errors = [*MORE]
    return runtime.claimer


@pytest.mark.parametrize("denied", [start, create])
async def test_waiting_for_a_permission_is_no_reason_to_kill_the_pod(
    denied: Callable[[Runtime], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "REFUSED_PAUSE_S", 0)
    runtime = Runtime()
    service = denied(runtime)
    service.start()
    try:
        await until(lambda: runtime.connectivity.up is False)
        for _ in range(4):
            runtime.time.pass_(STUCK_AFTER_S / 2)
            await settled(20)
            assert not runtime.router.stuck()
    finally:
        await service.stop()
