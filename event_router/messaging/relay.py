"""The relay: from a domain's fan-out log to Pub/Sub, one leader a log, others ready to take over."""

from __future__ import annotations

import asyncio

from event_router.core.errors import EventRouterError, RedisRefused, RedisUnavailable
from event_router.core.fan_out import Extent, Progress, unseen_before
from event_router.messaging.outbox import Entries, Outbox
from event_router.messaging.publishing import Publishing
from event_router.messaging.relay_lease import Held, RelayLease
from event_router.runtime.connectivity import Clock
from event_router.runtime.fan_out import FanOutObserver, Patience

LEASE_S = 5.0
READ_COUNT = 200
BLOCK_MS = 2000
LOOK_S = 1.0
"""Seconds until a standby asks for the lease again, the leader renews it, and looks for what was trimmed."""
PROGRESS_S = 0.1
"""Progress is noted no more often: what is published in this time may be repeated after a crash."""
REFUSED_PAUSE_S = 5.0


class Relay:
    """Publishes one fan-out log while it leads, and stands by while another does.

    1. Take the lease when nobody holds it; go on where the last leader had got to.
    2. Read behind that, publish in the log's order, each message with its entry's id.
    3. Renew the lease, and note the progress with it.
    4. Count what was trimmed before it could be read.
    5. When asked to stop, publish what is there and give the lease back.

    What is published after the last noted progress is published again by the next leader, under its
    old id. A leader that was frozen beyond its lease publishes nothing before it has renewed it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        outbox: Outbox,
        lease: RelayLease,
        publishing: Publishing,
        log_patience: Patience,
        publish_patience: Patience,
        observer: FanOutObserver,
        lease_s: float = LEASE_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._clock = clock
        self._outbox = outbox
        self._lease = lease
        self._publishing = publishing
        self._log = log_patience
        self._pubsub = publish_patience
        self._observer = observer
        self._lease_s = lease_s
        self._look_s = look_s
        self._token: int | None = None
        self._interrupted = False
        self._valid_until = 0.0
        self._progress = Progress()
        self._moved = asyncio.Event()
        self._quiet = asyncio.Event()
        self._failing_since: float | None = None

    def __repr__(self) -> str:
        return f"<Relay of {self.outbox} {'leads' if self.leads else 'stands by'}, at {self._progress.id}>"

    @property
    def outbox(self) -> str:
        """The fan-out log."""
        return self._outbox.name

    @property
    def leads(self) -> bool:
        """Whether this one publishes, as far as it knows."""
        return self._token is not None

    async def run(self) -> None:
        """Stand by or lead until asked to be quiet; then the log is published, and `give_back` is due."""
        while not self._quiet.is_set():
            try:
                await self._log.ready()
                left_s = await self.take()
                if left_s is None:
                    await self._publish_log()
                else:
                    await self._pause(min(left_s, self._look_s))
            except RedisUnavailable as error:
                self._step_down(str(error), outage=True)
                await self._log.failed("relay", error)
            except EventRouterError as error:
                self._observer.refused(f"relay of {self.outbox}", str(error))
                await self.give_back()
                await self._pause(REFUSED_PAUSE_S)

    async def keep(self) -> None:
        """Renew the lease and note the progress while this one leads, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._look_s):
                    await self._moved.wait()
            except TimeoutError:
                pass
            self._moved.clear()
            try:
                await self.keep_once()
            except EventRouterError as error:
                # The reading side finds out by itself; the lease ends if this goes on.
                await self._log.failed("relay", error)
                continue
            await asyncio.sleep(min(PROGRESS_S, self._look_s))

    async def quiet(self) -> None:
        """Have `run` publish what is there, and end."""
        self._quiet.set()
        if self.leads:
            await self._outbox.unblock()

    async def take(self) -> float | None:
        """Take the lease. Returns None if this one leads now, else how long the other's lease lasts."""
        asked = self._clock.monotonic()
        answer = await self._lease.take()
        self._log.answered("relay")
        interrupted, self._interrupted = self._interrupted, False
        if isinstance(answer, Held):
            if interrupted:
                self._observer.stands_by(self.outbox, "another one leads")
            return answer.seconds
        self._token, self._valid_until = answer.token, asked + self._lease_s
        self._progress = answer.progress
        self._failing_since = None
        self._observer.leads(self.outbox, answer.token, outage=interrupted and answer.again)
        return None

    async def keep_once(self) -> None:
        """Renew the lease and note the progress; step down if another one leads."""
        token, progress, asked = self._token, self._progress, self._clock.monotonic()
        if token is None:
            return
        kept = await self._lease.keep(token, progress)
        self._log.answered("relay")
        if token != self._token:
            return
        if kept:
            self._valid_until = asked + self._lease_s
        else:
            self._step_down("another one leads")

    async def give_back(self, *, outage: bool = False) -> None:
        """Note the progress and free the lease; if Redis is away it ends by itself."""
        token = self._token
        if token is not None:
            self._step_down("given back", outage=outage)
            try:
                await self._lease.give_back(token, self._progress)
            except EventRouterError as error:
                self._observer.stands_by(self.outbox, f"the lease ends by itself: {error}")

    async def _publish_log(self) -> None:
        """Read and publish until asked to be quiet, or until another one leads."""
        behind, looked = True, 0.0
        while self.leads:
            quiet = self._quiet.is_set()
            after = self._progress.id
            if behind or quiet or self._clock.monotonic() - looked >= self._look_s:
                extent, entries = await self._outbox.survey(after, count=READ_COUNT)
                self._count_trimmed(extent)
                looked = self._clock.monotonic()
                if not entries and quiet:
                    return
                behind = len(entries) == READ_COUNT
            else:
                entries = await self._outbox.wait(after, count=READ_COUNT, block_ms=BLOCK_MS)
                behind = len(entries) == READ_COUNT
            if entries:
                await self._publish(entries)

    async def _publish(self, entries: Entries) -> None:
        """Publish all of these in their order, however long it takes, or lose the lead."""
        left = self._publishing.messages(entries)
        while left:
            if not await self._still_leads():
                return
            try:
                left = await self._publishing.publish(left)
            except (RedisUnavailable, RedisRefused) as error:
                await self._wait_for_pubsub(error)
            else:
                self._failing_since = None
                self._pubsub.answered("publish")
        self._progress = Progress(entries[-1][0], self._progress.seen + len(entries))
        self._moved.set()

    async def _wait_for_pubsub(self, error: EventRouterError) -> None:
        now = self._clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        await self._pubsub.failed("publish", error)
        if self._quiet.is_set():
            await self.give_back()
        elif now - self._failing_since > self._lease_s:
            # It may be this process alone that does not reach it.
            await self.give_back(outage=True)
            self._pubsub.answered("publish")
            await self._pause(2 * self._look_s)

    async def _still_leads(self) -> bool:
        if self.leads and self._clock.monotonic() >= self._valid_until:
            await self.keep_once()
        return self.leads

    def _count_trimmed(self, extent: Extent) -> None:
        unseen = unseen_before(extent, self._progress)
        if unseen:
            self._progress = Progress(self._progress.id, self._progress.seen + unseen)
            self._moved.set()
        if unseen is not None and unseen > 0:
            self._observer.trimmed_unpublished(self.outbox, unseen)

    def _step_down(self, reason: str, *, outage: bool = False) -> None:
        if self._token is not None:
            self._token, self._interrupted = None, outage
            self._observer.stands_by(self.outbox, reason, outage=outage)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        except TimeoutError:
            pass
