"""What a subscriber has subscribed to, kept subscribed whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio.connection import ConnectionPool

from event_router.core.errors import EventRouterError, NotSubscribed, RedisUnavailable
from event_router.core.pubsub_observer import PubSubObserver
from event_router.core.retry import RetryPolicy
from event_router.messaging.awaited import Awaited as Awaited
from event_router.messaging.awaited import Key as Key
from event_router.messaging.buffer import Arrived, Buffer
from event_router.messaging.channels import Channel, Pattern
from event_router.messaging.messages import Gap
from event_router.messaging.pubsub_link import PubSubLink
from event_router.runtime.cancelling import end

NAMES_A_COMMAND = 1000
READS_A_TURN = 100
"""Replies that are there already are read without waiting; the others of the loop get a turn between."""

Name = Channel | Pattern
_log = logging.getLogger("event_router")


def key_of(name: Name) -> Key:
    """Return what tells a channel from the pattern of the same text."""
    return isinstance(name, Pattern), str(name)


class Subscriptions:
    """Reads messages of wanted names into a buffer, and connects anew when the connection is lost.

    Its duties: (1) to subscribe and to wait for the confirmation; (2) to read; (3) to notice a server that
    is silent, by a PING; (4) after a loss, to connect with growing, jittered pauses, to subscribe to
    everything again, and to mark the gap only then, so that whoever reads a state at the gap misses
    nothing after it.

    Args:
        keep_trying: whether to connect anew after this error.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        buffer: Buffer,
        timeout_s: float,
        heartbeat_s: float,
        pauses: RetryPolicy,
        keep_trying: Callable[[EventRouterError], bool],
        monotonic: Callable[[], float],
        observer: PubSubObserver,
    ) -> None:
        self._pool = pool
        self._buffer = buffer
        self._timeout_s = timeout_s
        self._heartbeat_s = heartbeat_s
        self._pauses = pauses
        self._keep_trying = keep_trying
        self._monotonic = monotonic
        self._observer = observer
        self._link: PubSubLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked: deque[Sequence[Key]] = deque()
        self._waiting: set[Awaited] = set()
        self._confirmed: set[Key] = set()
        self._held: set[Key] = set()
        self._was_up = False
        self._down_since: float | None = None
        self.names: dict[Key, Name] = {}

    def __repr__(self) -> str:
        return f"<Subscriptions {'up' if self.up else 'down'}: {', '.join(self.names.values()) or 'none'}>"

    @property
    def up(self) -> bool:
        """Whether everything that is wanted is subscribed, as far as is known."""
        return bool(self.names) and self._confirmed >= self.names.keys()

    async def add(self, names: Iterable[Name]) -> None:
        """Subscribe, and wait until the server has confirmed it.

        Raises:
            RedisUnavailable: it has not within the timeout; the names are not subscribed, but for those
                that somebody else has subscribed, or waits for.
            NotSubscribed: somebody has unsubscribed one of them meanwhile.
        """
        wanted = {key_of(name): name for name in names}
        new = {key: name for key, name in wanted.items() if key not in self.names}
        awaited = Awaited(wanted.keys() - self._confirmed)
        self.names |= new
        if awaited.left:
            self._waiting.add(awaited)
            try:
                await self._confirmation(awaited, new)
            except BaseException:
                await self._give_back(wanted.keys())
                raise
        self._held |= wanted.keys() & self.names.keys()

    async def remove(self, names: Iterable[Name]) -> None:
        """Unsubscribe: no further message of these names arrives, whether the server answers or not."""
        gone = {key for key in map(key_of, names) if self.names.pop(key, None) is not None}
        self._confirmed -= gone
        self._held -= gone
        self._buffer.forget(gone)
        for awaited in self._waiting:
            for _, name in awaited.left & gone:
                awaited.fail(NotSubscribed(f"{name!r} was unsubscribed before Redis had confirmed it"))
        if not self.names:
            await self.close()
        else:
            await self._ask_if_connected("UNSUBSCRIBE", gone)

    async def close(self) -> None:
        """Forget everything and close the connection; takers get what is left, then the end."""
        # All of this before the first pause: whoever subscribes meanwhile begins anew.
        task, self._task = self._task, None
        link, self._link = self._link, None
        self.names.clear()
        self._held.clear()
        self._forget(RedisUnavailable("the subscriber was closed"))
        self._was_up, self._down_since = False, None
        self._buffer.end()
        if task is not None and task is not asyncio.current_task():
            await end(task)
        if link is not None:
            await link.close()

    async def _confirmation(self, awaited: Awaited, new: Iterable[Key]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._task is None or self._task.done():
                    self._task = asyncio.create_task(self._run(), name="event-router-subscriptions")
                elif self._link is not None:
                    await self._ask(self._link, "SUBSCRIBE", new)
                await awaited.done
        except TimeoutError as error:
            raise RedisUnavailable(f"no confirmation of SUBSCRIBE within {self._timeout_s:g} s") from error
        finally:
            self._waiting.discard(awaited)
            awaited.give_up()

    async def _give_back(self, keys: Iterable[Key]) -> None:
        """Remove names that nobody has subscribed; ask again for those that others wait for."""
        others: set[Key] = set().union(*(awaited.left for awaited in self._waiting))
        own = {key: self.names[key] for key in keys if key in self.names and key not in self._held}
        await self.remove([name for key, name in own.items() if key not in others])
        await self._ask_if_connected("SUBSCRIBE", own.keys() & others)

    async def _ask_if_connected(self, verb: str, keys: Iterable[Key]) -> None:
        """Ask; without a connection the next one subscribes to what is wanted then."""
        if self._link is not None:
            try:
                await self._ask(self._link, verb, keys)
            except RedisUnavailable as error:
                _log.debug("%s was not sent: %s", verb, error)

    async def _run(self) -> None:
        failures, task = 0, asyncio.current_task()
        try:
            while self.names and self._task is task:
                began = self._monotonic()
                try:
                    await self._read(await self._connect())
                except EventRouterError as error:
                    if self._task is not task:
                        return  # closed
                    await self._drop(error)
                    if self._monotonic() - began > self._pauses.longest_ms / 1000:
                        failures = 0
                    failures += 1
                    if not self._lost(error):
                        return
                    await asyncio.sleep(self._pauses.delay_ms(failures) / 1000)
        except Exception as error:
            self._buffer.end(error)
            raise

    def _lost(self, error: EventRouterError) -> bool:
        """Report the loss of a connection once; return whether to connect anew."""
        if not self._was_up:
            return bool(self.names)  # the first one: `add` raises its error, and takes the names back
        if self._down_since is None:
            self._down_since = self._monotonic()
            self._observer.outage_began(str(error))
            _log.warning("Pub/Sub connection lost: %s", error)
        if self._keep_trying(error):
            return True
        self._buffer.end(error)
        return False

    async def _connect(self) -> PubSubLink:
        link = PubSubLink(self._pool, timeout_s=self._timeout_s)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        if self._task is not asyncio.current_task():
            await link.close()
            raise RedisUnavailable("the subscriber was closed")
        # Not before: a command between those of the handshake would be taken for one of them.
        self._link = link
        early: list[Arrived] = []
        await self._ask(link, "SUBSCRIBE", list(self.names))
        try:
            async with asyncio.timeout(self._timeout_s):
                while self._asked:
                    self._took(await link.read(), early.append, refusals_are_fatal=True)
        except TimeoutError:
            raise RedisUnavailable(f"no confirmation of SUBSCRIBE within {self._timeout_s:g} s") from None
        if self._was_up:
            self._buffer.mark_gap(Gap(reconnected=True))
            seconds = self._monotonic() - (self._down_since or self._monotonic())
            self._observer.outage_ended(seconds)
            _log.warning("Pub/Sub connection stands again after %.1f s", seconds)
        self._was_up, self._down_since = True, None
        for arrived in early:
            self._buffer.put(arrived)
        return link

    async def _read(self, link: PubSubLink) -> None:
        watch = asyncio.create_task(link.watch(self._heartbeat_s), name="event-router-subscriptions-watch")
        try:
            while True:
                self._took(await link.read(), self._buffer.put)
                if link.reads % READS_A_TURN == 0:
                    await asyncio.sleep(0)
        finally:
            await end(watch)

    def _took(
        self, reply: Any, put: Callable[[Arrived], object], *, refusals_are_fatal: bool = False
    ) -> None:
        if isinstance(reply, EventRouterError):
            refused = self._asked.popleft() if self._asked else ()
            for awaited in [waiter for waiter in self._waiting if waiter.left & {*refused}]:
                awaited.fail(reply)
            if refusals_are_fatal:
                raise reply
        if not isinstance(reply, list):
            return
        kind, *rest = reply
        if kind in (b"message", b"pmessage"):
            words = [word.decode("utf-8", "surrogateescape") for word in rest[:-1]]
            key = (kind == b"pmessage", words[0])
            if key in self.names:
                put(Arrived(key, words[-1], rest[-1]))
        elif kind in (b"subscribe", b"psubscribe", b"unsubscribe", b"punsubscribe") and rest[0] is not None:
            key = (kind.startswith(b"p"), rest[0].decode("utf-8", "surrogateescape"))
            self._answered(key, subscribed=kind.endswith(b"subscribe") and b"un" not in kind)

    def _answered(self, key: Key, *, subscribed: bool) -> None:
        if self._asked and self._asked[0][-1] == key:
            self._asked.popleft()
        if subscribed and key in self.names:
            self._confirmed.add(key)
            for awaited in list(self._waiting):
                awaited.confirm(key)

    async def _ask(self, link: PubSubLink, verb: str, keys: Iterable[Key]) -> None:
        wanted = sorted(keys)
        for prefix, several in (
            ("", [key for key in wanted if not key[0]]),
            ("P", [key for key in wanted if key[0]]),
        ):
            for first in range(0, len(several), NAMES_A_COMMAND):
                part = several[first : first + NAMES_A_COMMAND]
                self._asked.append(part)
                try:
                    await link.send(f"{prefix}{verb}", *(name for _, name in part))
                except BaseException:
                    with contextlib.suppress(ValueError):
                        self._asked.remove(part)  # nothing will answer it
                    raise

    async def _drop(self, error: EventRouterError) -> None:
        link, self._link = self._link, None
        self._forget(error)
        if link is not None:
            await link.close()

    def _forget(self, error: EventRouterError) -> None:
        """Forget what is known of a connection; whoever waits for a confirmation raises the error."""
        self._confirmed.clear()
        self._asked.clear()
        for awaited in self._waiting:
            awaited.fail(error)
