"""The service that has lapsed connections noticed: everything that is due, and it outlasts what fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from event_router.core.errors import RedisDenied, RedisRefused, RedisUnavailable
from event_router.runtime.connectivity import Connectivity
from event_router.runtime.presence_expiry import AT_ONCE, PresenceExpiry
from tests.unit.runtime_fakes import Reports, Time, until


@dataclass(frozen=True)
class Taken:
    taken: int


class FakePresence:
    """Takes what the steps say, then nothing."""

    def __init__(self, *steps: int | Exception) -> None:
        self.steps = list(steps)
        self.limits: list[int] = []

    async def expire(self, *, limit: int) -> Taken:
        self.limits.append(limit)
        step = self.steps.pop(0) if self.steps else 0
        if isinstance(step, Exception):
            raise step
        return Taken(step)


def service(presence: FakePresence, reports: Reports) -> PresenceExpiry:
    clock = Time().clock
    connectivity = Connectivity(clock, reports)
    return PresenceExpiry(clock, presence=presence, connectivity=connectivity, observer=reports)


def told(reports: Reports) -> list[str]:
    return [name for name, _ in reports.all if "reachable" not in name]


async def test_goes_on_while_there_is_more() -> None:
    presence = FakePresence(AT_ONCE, AT_ONCE, 3, 7)
    await service(presence, Reports()).run_once()
    assert presence.limits == [AT_ONCE] * 3
    assert presence.steps == [7]


async def test_outlasts_outages_and_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PresenceExpiry, "interval_s", 0)
    away = RedisUnavailable("it is away")
    presence, reports = FakePresence(away, away, 5, RedisRefused("it is a string"), 5), Reports()
    running = service(presence, reports)
    task = running.start()
    await until(lambda: len(presence.limits) > 5)
    assert not task.done()
    assert running.stuck_for() == 0
    await running.stop()
    assert told(reports) == ["outage_began", "outage_ended", "refused"]
    assert reports.of("refused") == [("presence", "it is a string")]


async def test_a_missing_permission_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PresenceExpiry, "interval_s", 0)
    away, denied = RedisUnavailable("it is away"), RedisDenied("NOPERM")
    presence, reports = FakePresence(away, denied, denied, 5), Reports()
    running = service(presence, reports)
    running.start()
    await until(lambda: len(presence.limits) > 3)
    await running.stop()
    assert told(reports) == ["outage_began", "refused", "outage_ended", "refused"]


async def test_can_be_stopped_before_it_started_and_twice() -> None:
    running = service(FakePresence(), Reports())
    await running.stop()
    running.start()
    await asyncio.sleep(0)
    await running.stop()
    await running.stop()
    assert repr(running) == "<PresenceExpiry stopped>"
