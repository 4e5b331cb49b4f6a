"""Who publishes a fan-out log: a lease with a fencing token, and with it how far the log is published."""

from __future__ import annotations

from dataclasses import dataclass

from event_router.core.fan_out import Progress, relay_key
from event_router.redis_client.script import Caller, Script

PACKAGE = "event_router.messaging"


@dataclass(frozen=True, slots=True)
class Lead:
    """The lease was taken.

    Attributes:
        token: grows with each lead; a request with an older one changes nothing.
        progress: where publishing goes on.
        again: nobody else has led since this holder did, as far as the lease knows.
    """

    token: int
    progress: Progress
    again: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else holds the lease, for so many seconds unless it is renewed or given back."""

    seconds: float


class RelayLease:
    """The lease of one fan-out log, kept in the hash `event-router:relay:{outbox}` on the streams Redis.

    Time is the server's. A relay that was frozen, or whose request comes late, finds its token outdated.

    Args:
        holder: who asks; a name no other process uses, so that a reply that was lost costs nothing.
        lasts_s: seconds from one renewal to the end.
    """

    def __init__(self, caller: Caller, outbox: str, holder: str, *, lasts_s: float) -> None:
        self._caller = caller
        self._outbox = outbox
        self._key = relay_key(outbox)
        self._holder = holder
        self._lasts_ms = int(lasts_s * 1000)
        self._take = Script("relay_take", PACKAGE, ("entry_ids",))
        self._keep = Script("relay_keep", PACKAGE, ("entry_ids",))

    def __repr__(self) -> str:
        return f"<RelayLease {self._key} for {self._holder}>"

    async def take(self) -> Lead | Held:
        """Take the lease unless somebody else holds it. Raises RedisUnavailable or RedisRefused."""
        reply = await self._take.run(self._caller, (self._key, self._outbox), (self._holder, self._lasts_ms))
        if not reply[0]:
            return Held(reply[1] / 1000)
        return Lead(int(reply[0]), Progress(reply[1].decode(), int(reply[2])), bool(reply[3]))

    async def keep(self, token: int, progress: Progress) -> bool:
        """Renew the lease and note the progress; False if another one leads: nothing was written.

        Progress is never moved back. Raises RedisUnavailable or RedisRefused.
        """
        return await self._hold(token, progress, self._lasts_ms)

    async def give_back(self, token: int, progress: Progress) -> bool:
        """Note the progress and let another take the lease at once; False if another one leads."""
        return await self._hold(token, progress, 0)

    async def _hold(self, token: int, progress: Progress, lasts_ms: int) -> bool:
        args = (token, lasts_ms, progress.id, progress.seen)
        return bool(await self._keep.run(self._caller, (self._key,), args))
