"""Every background service keeps the same small contract; and what is said of an outage."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from event_router.core.errors import NoGroup
from event_router.runtime.connectivity import FIRST_PAUSE_S, LONGEST_PAUSE_S, Clock, Connectivity
from event_router.runtime.observer import Observer, Observers
from event_router.runtime.services import Service
from event_router.runtime.signals import StopRequest
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import AWAY, BIKES, CARS, Creation, Reports, Time, entry, settled, until

SERVICES = (
    "sequencer",
    "committer",
    "suspects",
    "retries",
    "leases",
    "overdue",
    "claimer",
    "consumer",
    "housekeeper",
)


async def stress(service: Service) -> None:
    """Start and stop a service in every order that may occur."""
    await service.stop()
    assert "new" in repr(service)
    task = service.start()
    assert service.start() is task
    await settled(20)
    assert not task.done(), f"{service!r} ended by itself"
    assert "running" in repr(service)
    await asyncio.gather(service.stop(), service.stop())
    await service.stop()
    assert task.done()
    assert "stopped" in repr(service)
    assert service.start() is task
    assert service.stuck_for() == 0 or service._busy_since is not None


class TestContract:
    @pytest.mark.parametrize("name", SERVICES)
    async def test_start_and_stop(self, name: str) -> None:
        async with Runtime(services=()) as runtime:
            await stress(getattr(runtime, name))

    @pytest.mark.parametrize("name", SERVICES)
    async def test_stopped_before_it_ran_at_all(self, name: str) -> None:
        async with Runtime(services=()) as runtime:
            service: Service = getattr(runtime, name)
            task = service.start()
            await service.stop()
            assert task.done()

    @pytest.mark.parametrize(
        "name", [name for name in SERVICES if name != "consumer"]
    )  # its read ends by itself
    async def test_idle_it_is_not_stuck(self, name: str) -> None:
        async with Runtime(services=(name,)) as runtime:
            await settled(20)
            runtime.time.pass_(1_000)
            await settled(20)
            assert getattr(runtime, name).stuck_for() == 0
            assert not runtime.router.stuck()

    @pytest.mark.parametrize("name", SERVICES)
    async def test_it_is_stopped_while_redis_is_away(self, name: str) -> None:
        async with Runtime(services=()) as runtime:
            for method in ("due", "take", "own_ids", "set", "count_start"):
                runtime.claims.errors[method] = [AWAY] * 10_000
            runtime.reads.errors = [AWAY] * 10_000
            runtime.state.errors = [AWAY] * 10_000
            service: Service = getattr(runtime, name)
            task = service.start()
            await settled()
            assert not task.done()
            await service.stop()
            assert task.done()

    async def test_one_that_makes_no_progress_is_named(self) -> None:
        async with Runtime(services=("sequencer",)) as runtime:
            runtime.state.gate.clear()
            waiting = runtime.sequencer.fetch(("k", "a"))
            await until(lambda: runtime.state.reads)
            runtime.time.pass_(61)
            assert runtime.router.stuck() == ["state-reads"]
            runtime.state.gate.set()
            await waiting
            await settled()
            assert not runtime.router.stuck()

    async def test_an_outage_is_no_standstill(self) -> None:
        async with Runtime(services=("sequencer",)) as runtime:
            runtime.state.errors = [AWAY] * 100_000
            waiting = runtime.sequencer.fetch(("k", "a"))
            for _ in range(10):
                runtime.time.pass_(50)
                await settled()
                assert not runtime.router.stuck()
            waiting.cancel()

    @pytest.mark.parametrize("name", ["suspects", "consumer"])
    async def test_nor_is_one_in_which_entries_are_counted_or_groups_made(self, name: str) -> None:
        async with Runtime(services=()) as runtime:
            runtime.claims.errors["count_start"] = [AWAY] * 100_000
            runtime.group_port.errors = [AWAY] * 100_000
            runtime.reads.errors = [NoGroup(BIKES)]
            runtime.suspects.add([entry(1)])
            getattr(runtime, name).start()
            for _ in range(3):
                await settled()
                assert not runtime.router.stuck()
                runtime.time.pass_(50)


class TestHousekeeper:
    async def test_trimming_goes_on_while_it_trims_much(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.group_port.trims = [10_000, 9_982, 3]
            runtime.group_port.dead = ["consumer-old"]
            await runtime.housekeeper.run_once()
            assert [count for _, count in runtime.reports.of("retained")] == [10_000, 9_982, 3]
            assert runtime.reports.of("consumers_removed") == [(BIKES, ["consumer-old"])]
            assert runtime.refreshed == 1


class TestGroupKeeper:
    async def test_a_first_start_reports_no_loss(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.group_port.missing[BIKES] = Creation(entries=100)
            await runtime.groups.recreate(BIKES)
            assert not runtime.reports.of("group_created")

    async def test_a_group_that_was_there_before_is_reported(self) -> None:
        async with Runtime(services=()) as runtime:
            await runtime.groups.recreate(BIKES)
            runtime.group_port.missing[BIKES] = Creation("5-0", entries=100)
            await runtime.groups.recreate(BIKES)
            assert runtime.reports.of("group_created") == [(BIKES, "5-0", 100, True)]

    async def test_it_outlasts_an_outage(self) -> None:
        async with Runtime(services=()) as runtime:
            runtime.group_port.errors = [AWAY, AWAY]
            await runtime.groups.recreate()
            assert runtime.group_port.ensured == [BIKES, BIKES, BIKES, CARS]
            assert runtime.connectivity.up


class TestConnectivity:
    async def test_an_outage_is_told_once_at_its_begin_and_once_at_its_end(self) -> None:
        time, reports = Time(), Reports()
        connectivity = Connectivity(time.clock, reports)
        for role in ("read", "commit", "read", "state"):
            await connectivity.failed(role, AWAY)
            time.pass_(2)
        assert not connectivity.up
        for role in ("read", "state", "control"):
            connectivity.answered(role)
        assert not connectivity.up
        assert repr(connectivity) == "<Connectivity down: commit>"
        connectivity.answered("commit")
        connectivity.answered("commit")
        assert reports.of("outage_began") == [("read", "it is away")]
        assert reports.of("outage_ended") == [(8.0,)]
        assert repr(connectivity) == "<Connectivity up>"
        assert connectivity.ended_at == time.now

    async def test_what_one_caller_is_refused_goes_on_while_others_are_answered(self) -> None:
        reports = Reports()
        connectivity = Connectivity(Time().clock, reports)
        for _ in range(3):
            await connectivity.failed("control", AWAY, "one")
            connectivity.answered("control", "other")
            connectivity.answered("control")
            assert repr(connectivity) == "<Connectivity down: control>"
        connectivity.answered("control", "one")
        assert connectivity.up
        told = ["outage_began", "unreachable", "reachable_again", "outage_ended"]
        assert [name for name, _ in reports.all] == told

    async def test_once_one_caller_is_answered_again_the_others_of_its_role_wait_no_longer(self) -> None:
        connectivity = Connectivity(Clock(lambda: 0.0, lambda: 0, lambda: 1e6), Reports())
        waiting = [
            asyncio.create_task(connectivity.failed(role, AWAY, caller))
            for role, caller in (("control", "one"), ("control", "other"), ("control", "third"), ("read", ""))
        ]
        await settled()
        connectivity.answered("control", "fourth")
        await settled()
        assert not any(task.done() for task in waiting)
        connectivity.answered("control", "other")
        await settled()
        assert [task.done() for task in waiting] == [True, True, True, False]
        waiting[-1].cancel()

    @pytest.mark.parametrize("name", ["claimer", "retries", "suspects", "leases"])
    async def test_each_service_finds_that_an_outage_is_over_and_nothing_left_to_do(self, name: str) -> None:
        async with Runtime(services=()) as runtime:
            for method in ("take", "take_ids", "count_start", "set", "due", "own_ids"):
                runtime.claims.errors[method] = [AWAY]
            runtime.suspects.add([entry(1)])
            runtime.failures.postpone(runtime.dispatcher.delivery(entry(2)), "no")
            runtime.leases._interval_s = 0
            getattr(runtime, name).start()
            await until(lambda: runtime.reports.of("outage_began"))
            runtime.leases._interval_s = 1_000
            await settled(500)
            assert runtime.connectivity.up

    async def test_the_next_outage_is_told_again(self) -> None:
        reports = Reports()
        connectivity = Connectivity(Time().clock, reports)
        for _ in range(3):
            await connectivity.failed("read", AWAY)
            connectivity.answered("read")
        assert len(reports.of("outage_began")) == len(reports.of("outage_ended")) == 3

    async def test_pauses_grow_to_a_bound_with_jitter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []

        async def pause(connectivity: Connectivity, role: str, seconds: float) -> None:
            pauses.append(seconds)

        chance = itertools.cycle([0.0, 1.0])
        monkeypatch.setattr(Connectivity, "_pause", pause)
        connectivity = Connectivity(Clock(lambda: 0.0, lambda: 0, lambda: next(chance)), Reports())
        for _ in range(2_000):
            await connectivity.failed("read", AWAY)
        assert pauses[:2] == pytest.approx([FIRST_PAUSE_S * 0.75, FIRST_PAUSE_S * 2 * 1.25])
        assert pauses[-2:] == pytest.approx([LONGEST_PAUSE_S * 0.75, LONGEST_PAUSE_S * 1.25])


class TestObservers:
    def test_everything_is_passed_on_to_all(self) -> None:
        one, two = Reports(), Reports()
        both = Observers([_Named(one), _Named(two), Observer()])
        both.outage_ended(1.5)
        both.claimed("s", 3)
        assert one.all == two.all == [("outage_ended", (1.5,))]


class _Named(Observer):
    """Overrides one report only."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def outage_ended(self, seconds: float) -> None:
        self._reports.outage_ended(seconds)


def test_asking_again_forces_the_stop() -> None:
    request = StopRequest()
    request.ask()
    assert request.graceful.is_set()
    assert not request.forced.is_set()
    request.ask()
    assert request.forced.is_set()
