"""How relays wait for Redis, and whom they disturb by it."""

from __future__ import annotations

import asyncio

from event_router.core.errors import RedisDenied, RedisUnavailable
from event_router.runtime.connectivity import Connectivity
from event_router.runtime.fan_out import SETTLING_S, Gate, Patience
from event_router.runtime.observer import Observers
from tests.unit.runtime_fakes import Reports, Time, settled, until

AWAY = RedisUnavailable("away")


def names(reports: Reports) -> list[str]:
    return [report.name for report in reports.all if report.name.startswith("outage")]


async def test_a_failure_of_a_server_of_its_own_is_told_at_once() -> None:
    reports = Reports()
    patience = Patience(Connectivity(Time().clock, reports))
    await patience.failed("publish", AWAY)
    assert names(reports) == ["outage_began"]
    patience.answered("publish")
    assert names(reports) == ["outage_began", "outage_ended"]


async def test_on_the_routers_server_connections_break_in_silence_and_lasting_failure_is_told() -> None:
    reports, time = Reports(), Time()
    patience = Patience(Connectivity(time.clock, reports), Gate())
    for _ in range(3):
        await asyncio.gather(*(patience.failed("relay", AWAY) for _ in range(2)))
        patience.answered("relay")
        time.pass_(SETTLING_S)
    assert names(reports) == []
    await patience.failed("relay", AWAY)
    time.pass_(SETTLING_S)
    await patience.failed("relay", AWAY)
    assert names(reports) == ["outage_began"]


async def test_a_connection_that_an_outage_broke_is_no_outage_after_it() -> None:
    reports, time, gate = Reports(), Time(), Gate()
    patience = Patience(Connectivity(time.clock, reports), gate)
    await patience.failed("relay", AWAY)
    gate.unreachable("away")
    time.pass_(60)
    gate.reachable_again()
    await patience.failed("relay", AWAY)
    assert names(reports) == []


async def test_an_outage_of_the_router_is_waited_for_in_silence() -> None:
    reports, gate = Reports(), Gate()
    patience = Patience(Connectivity(Time().clock, reports), gate)
    gate.unreachable("away")
    assert not gate.is_open
    waiting = [asyncio.create_task(patience.failed("relay", AWAY)), asyncio.create_task(patience.ready())]
    await settled()
    await asyncio.sleep(0.15)  # longer than the pause after a failure
    assert not any(task.done() for task in waiting)
    gate.reachable_again()
    await until(waiting[1].done)
    await asyncio.gather(*waiting)
    assert names(reports) == []


def test_observers_within_observers_are_told() -> None:
    gate = Gate()
    Observers([Reports(), Observers([gate, Reports()])]).unreachable("away")
    assert not gate.is_open


async def test_what_waits_for_a_permission_keeps_no_relay_waiting() -> None:
    gate = Gate()
    connectivity = Connectivity(Time().clock, Observers([gate]))
    await connectivity.failed("denied commits", RedisDenied("NOPERM"))
    assert gate.is_open
    await connectivity.failed("read", AWAY)
    assert (gate.is_open, gate.error) == (False, "away")
    connectivity.answered("read")
    assert gate.is_open
    assert not connectivity.up
