"""How relays wait for Redis, and whom they disturb by it."""

from __future__ import annotations

import asyncio

from event_router.core.errors import RedisUnavailable
from event_router.runtime.connectivity import Connectivity
from event_router.runtime.fan_out import Gate, Patience
from tests.unit.runtime_fakes import Reports, Time, settled, until

AWAY = RedisUnavailable("away")


def names(reports: Reports) -> list[str]:
    return [report.name for report in reports.all]


async def test_a_failure_of_a_server_of_its_own_is_told_at_once() -> None:
    reports = Reports()
    patience = Patience(Connectivity(Time().clock, reports))
    await patience.failed("publish", AWAY)
    assert names(reports) == ["outage_began"]
    patience.answered("publish")
    assert names(reports) == ["outage_began", "outage_ended"]


async def test_on_the_routers_server_the_first_failure_is_the_broken_connection() -> None:
    reports = Reports()
    patience = Patience(Connectivity(Time().clock, reports), Gate())
    for _ in range(3):
        await patience.failed("relay", AWAY)
        patience.answered("relay")
    assert names(reports) == []
    await patience.failed("relay", AWAY)
    await patience.failed("relay", AWAY)
    assert names(reports) == ["outage_began"]


async def test_an_outage_of_the_router_is_waited_for_in_silence() -> None:
    reports, gate = Reports(), Gate()
    patience = Patience(Connectivity(Time().clock, reports), gate)
    gate.outage_began("read", "away")
    assert not gate.is_open
    waiting = [asyncio.create_task(patience.failed("relay", AWAY)), asyncio.create_task(patience.ready())]
    await settled()
    await asyncio.sleep(0.15)  # longer than the pause after a failure
    assert not any(task.done() for task in waiting)
    gate.outage_ended(1.0)
    await until(waiting[1].done)
    await asyncio.gather(*waiting)
    assert names(reports) == []
