"""Whether Redis answers, told once when an outage begins and once when it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from event_router.core.errors import EventRouterError, RedisDenied
from event_router.core.retry import jittered
from event_router.runtime.observer import Observer

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
"""With four roles retrying, a pod sends at most two requests a second while Redis is down."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, passed in so that a test can hold them.

    Attributes:
        monotonic: seconds, for deadlines and durations.
        wall_ms: epoch milliseconds.
        random: numbers from 0 to 1.
    """

    monotonic: Callable[[], float]
    wall_ms: Callable[[], int]
    random: Callable[[], float]


def growing_pause(times: int, chance: float) -> float:
    """Return the jittered seconds until what failed so often before is tried again."""
    return jittered(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(times, 10)), chance)


class Connectivity:
    """Collects what each role (read, commit, state, control) experiences with Redis.

    Where several callers share a role, each gives its name. One that Redis still refuses (it may be full, or
    lack a replica, and yet answer others) is away until its own call is answered.

    Attributes:
        ended_at: since when Redis is reachable (monotonic seconds).
    """

    def __init__(self, clock: Clock, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self._failures: dict[tuple[str, str], int] = {}
        self._errors: dict[tuple[str, str], str] = {}
        self._denied: set[tuple[str, str]] = set()
        self._since: float | None = None
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._recoveries: Counter[str] = Counter()
        self._failed_at: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
        self.ended_at = clock.monotonic()

    def __repr__(self) -> str:
        roles = dict.fromkeys(role for role, _ in self._failures)
        return f"<Connectivity down: {', '.join(roles)}>" if roles else "<Connectivity up>"

    @property
    def clock(self) -> Clock:
        """The time by which it waits."""
        return self._clock

    @property
    def error(self) -> str:
        """What Redis, or the socket, said last to those that are not answered; of being away first."""
        away = [error for caller, error in self._errors.items() if caller not in self._denied]
        return next(reversed(away or [*self._errors.values()]), "")

    @property
    def up(self) -> bool:
        """Whether every caller's last call was answered."""
        return not self._failures

    @property
    def reachable(self) -> bool:
        """Whether Redis answers, if only by denying something: whatever else is under way can go on."""
        return self._failures.keys() <= self._denied

    def answered(self, role: str, caller: str = "") -> None:
        """Note that a call was answered; others of the role that wait try again at once."""
        if (role, caller) not in self._failures:
            return
        reachable = self.reachable
        del self._failures[role, caller]
        del self._errors[role, caller]
        self._denied.discard((role, caller))
        self._recoveries[role] += 1
        for waiting in self._waiting.pop(role, ()):
            _resolve(waiting)
        self._tell_change(reachable)
        if not self._failures:
            now = self._clock.monotonic()
            began, self._since = self._since, None
            self._observer.outage_ended(now - (now if began is None else began))

    async def failed(self, role: str, error: EventRouterError, caller: str = "") -> None:
        """Note that a call failed, and wait a growing, jittered time before it is tried again."""
        count = self._failures.get((role, caller), 0)
        recoveries = self._recoveries[role]
        self._note(role, str(error), caller, denied=isinstance(error, RedisDenied))
        task = asyncio.current_task()
        if task is not None:
            self._failed_at[task] = self._clock.monotonic()
        # One after the other, so that a role with several callers asks no more often than one.
        async with self._turns.setdefault(role, asyncio.Lock()):
            if recoveries == self._recoveries[role]:
                await self._pause(role, growing_pause(count, self._clock.random()))

    def denied(self, role: str, error: str, caller: str = "") -> None:
        """Note that a call is denied; its caller goes on with others, and asks again in its own time."""
        self._note(role, error, caller, denied=True)

    def failed_for(self, task: asyncio.Task[Any] | None) -> float:
        """Return the seconds since a call of this task failed last: it waits for Redis if they are few."""
        failed_at = None if task is None else self._failed_at.get(task)
        return float("inf") if failed_at is None else self._clock.monotonic() - failed_at

    def _note(self, role: str, error: str, caller: str, *, denied: bool) -> None:
        reachable = self.reachable
        who = (role, caller)
        self._failures[who] = self._failures.get(who, 0) + 1
        self._errors.pop(who, None)
        self._errors[who] = error
        (self._denied.add if denied else self._denied.discard)(who)
        if self._since is None:
            self._since = self._clock.monotonic()
            self._observer.outage_began(role, error)
        self._tell_change(reachable)

    def _tell_change(self, was_reachable: bool) -> None:
        if self.reachable == was_reachable:
            return
        if was_reachable:
            self._observer.unreachable(self.error)
        else:
            self.ended_at = self._clock.monotonic()
            self._observer.reachable_again()

    async def _pause(self, role: str, seconds: float) -> None:
        """Wait so long, or until the role's calls are answered again."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        timer = loop.call_later(seconds, _resolve, over)
        self._waiting.setdefault(role, set()).add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._waiting.get(role, set()).discard(over)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
