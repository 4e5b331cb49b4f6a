"""Kills and freezes routers in the middle of their work."""

from __future__ import annotations

import random
from collections.abc import Sequence

import redis

from tests.environment.routers import Router
from tests.environment.streams import held_by
from tests.environment.waiting import eventually

WORK_SECONDS = 2.0
TAKEOVER_SECONDS = 20.0


class Chaos:
    """Chooses a victim among the routers that hold entries at that moment, so that every blow hits work."""

    def __init__(self, routers: Sequence[Router], client: redis.Redis, choose: random.Random) -> None:
        self._routers = routers
        self._client = client
        self._choose = choose
        self.kills = 0
        self.kills_at_work = 0

    def kill_one(self) -> None:
        """SIGKILL a router that holds entries (any, if none does for a while) and start it again."""
        victim, at_work = self._victim()
        victim.kill()
        victim.restart()
        self.kills += 1
        self.kills_at_work += at_work

    def freeze_one(self) -> None:
        """SIGSTOP a router until others took over what it held, then let it go on with what it has."""
        victim, _ = self._victim()
        victim.freeze()
        try:
            eventually(
                lambda: held_by(self._client, victim.consumer) == 0,
                within=TAKEOVER_SECONDS,
                what=f"{victim!r} is frozen and its entries are taken over",
            )
        finally:
            victim.thaw()

    def _victim(self) -> tuple[Router, bool]:
        try:
            workers = eventually(self._workers, within=WORK_SECONDS, every=0.001)
            return self._choose.choice(workers), True
        except AssertionError:
            return self._choose.choice(self._routers), False

    def _workers(self) -> list[Router]:
        return [router for router in self._routers if held_by(self._client, router.consumer)]
