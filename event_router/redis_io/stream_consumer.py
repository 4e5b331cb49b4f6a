"""The stream path's reading and claiming, for services that only want entries."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from redis.asyncio import Redis

from event_router.core.errors import (
    ConfigurationError,
    NoGroup,
    OutcomeUnknown,
    RedisRefused,
    RedisUnavailable,
)
from event_router.core.event import Entry
from event_router.core.keys import KeyNames
from event_router.redis_client.connections import ClientCaller, Link
from event_router.redis_client.sent_once import SentOnce
from event_router.redis_io.claims import Claims
from event_router.redis_io.entry_fields import Fields, decoded_fields
from event_router.redis_io.read_position import ReadPosition
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer

READ_MARGIN_S = 2.0
"""A blocked read that has not been answered so long after its block ended has no connection any more."""
RECREATED_PAUSE_S = 0.2

_log = logging.getLogger("event_router")


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What `StreamConsumer.reclaim` took over.

    Attributes:
        entries: id and fields of each.
        deleted: ids that were pending and no longer stand in the stream: their fields are lost, and they
            are no longer pending.
    """

    entries: list[tuple[str, Fields]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


class StreamConsumer:
    """Reads a consumer group's entries, at least once each; what becomes of them is the caller's.

        consumer = StreamConsumer(redis, group="mailer", consumer="mailer-0")
        async for stream, entry_id, fields in consumer.consume(["auth"]):
            ...
            await consumer.ack(stream, entry_id)

    Wherever a stream is named, it is by its domain (`auth`) or in full (`events:auth`); entries come with
    the full name. Methods raise RedisUnavailable when Redis does not answer or refuses for now, and
    RedisRefused for what trying again will not mend, such as a key that is no stream.

    Args:
        redis: a client of the Redis with the streams; its address and user are used, its connections one
            for each call. Its timeout need not exceed the block: reads have a timeout of their own.
        group: the service's own consumer group.
        consumer: a name that only this process has, and that it has again after a restart.
        stream_template: the router's `STREAM_TEMPLATE`; `{domain}` alone for streams of any name.
    """

    def __init__(
        self, redis: Redis, *, group: str, consumer: str, stream_template: str = "events:{domain}"
    ) -> None:
        if "{domain}" not in stream_template:
            raise ConfigurationError(f"stream_template {stream_template!r} has no {{domain}}")
        self._names = KeyNames(stream_template)
        self._group = group
        self._consumer = consumer
        self._client = ClientCaller(redis)
        self._once = SentOnce(redis)
        # Claims only calls the link; what a claim gets back must be ours, so nothing is sent twice.
        self._claims = Claims(cast(Link, self._once), group, consumer)

    def __repr__(self) -> str:
        return f"<StreamConsumer {self._consumer} of {self._group}>"

    async def setup_group(self, stream: str) -> bool:
        """Create the group, and the stream, where they are missing; return whether the group was.

        It begins with the first entry the stream has: nothing that was added before is skipped.
        """
        name = self._name(stream)
        try:
            await self._client.call("XGROUP", "CREATE", name, self._group, "0", "MKSTREAM")
        except RedisRefused as error:
            if str(error).startswith("BUSYGROUP"):
                return False
            raise RedisRefused(f"{name}: {error}") from error
        return True

    async def consume(
        self, streams: Sequence[str], block_ms: int = 5000, count: int = 100
    ) -> AsyncIterator[tuple[str, str, Fields]]:
        """Yield (stream, id, fields) of the group's entries for ever: first what is pending, then new ones.

        First come the entries that are pending for this consumer already: those it had not acknowledged
        when it last ended. Entries whose fields were trimmed away meanwhile are logged and acknowledged.
        A missing group is created at the beginning of its stream; entries may then come again. While Redis
        is away this waits; entries whose delivery was lost with a reply are found and yielded.

        Fields are decoded as the router does it: text, the members of a JSON object in `data` beside the
        others, which win. What cannot be decoded is yielded as it came, never left out: a value that is not
        UTF-8 as `bytes`, a `data` that is no JSON object as the text it is.

        Args:
            block_ms: how long one read waits at the server, in milliseconds, at least 1.
            count: entries a read asks for, of each stream. They are in the caller's hands from the read on:
                others may reclaim what has waited for longer than their `min_idle_ms`.

        Raises:
            RedisRefused: for example where a key is no stream.
        """
        if block_ms < 1 or count < 1:
            raise ValueError("block_ms and count must be at least 1")
        names = [self._name(stream) for stream in ([streams] if isinstance(streams, str) else streams)]
        if not names:
            raise ValueError("no streams are named")
        position = ReadPosition(names)
        connectivity = Connectivity(_CLOCK, _Outages())
        while True:
            try:
                entries = await self._next(position, block_ms, count)
            except NoGroup:
                await self._recreate(position)
            except (RedisUnavailable, OutcomeUnknown) as error:
                # The server may hold on to a read that we gave up until its block is over.
                position.lost(until=time.monotonic() + block_ms / 1000 + READ_MARGIN_S)
                await connectivity.failed("read", error)
            else:
                connectivity.answered("read")
                for entry in entries:
                    yield entry.stream, entry.id, decoded_fields(entry.fields)

    async def ack(self, stream: str, entry_id: str) -> bool:
        """Acknowledge an entry; return whether it was pending still. Safe to call again."""
        return bool(await self._client.call("XACK", self._name(stream), self._group, entry_id))

    async def reclaim(
        self, stream: str, min_idle_ms: int = 60_000, count: int = 100, most: int | None = None
    ) -> Reclaimed:
        """Take over the entries that any consumer of the group has left idle for so long.

        The whole pending list is walked, to its end. The delivery count of each entry is raised.

        Args:
            count: entries a step looks at.
            most: stop when so many are taken over; None takes over all.

        Raises:
            OutcomeUnknown: a reply was lost. Entries may be this consumer's now; `consume` yields them when
                it begins anew, `reclaim` once they have been idle for long enough again.
            NoGroup: the group does not exist.
        """
        name, after, found = self._name(stream), "", Reclaimed()
        while most is None or len(found.entries) < most:
            step = count if most is None else min(count, most - len(found.entries))
            taken = await self._claims.take(name, min_idle_ms=min_idle_ms, after=after, count=step)
            await self._acknowledge_deleted(name, taken.trimmed)
            found.deleted.extend(entry_id for entry_id, _ in taken.trimmed)
            for entry in await self._counted(name, taken.entries):
                found.entries.append((entry.id, decoded_fields(entry.fields)))
            after = taken.last
            if not after:
                break
        return found

    async def _next(self, position: ReadPosition, block_ms: int, count: int) -> list[Entry]:
        """Return what comes next: pending entries while there are any to look at, then new ones."""
        if not position.looks_for_pending(time.monotonic()):
            return position.arrived(await self._read(position.streams, block_ms, count))
        name, after = next(iter(position.pending.items()))
        taken = await self._claims.take(name, min_idle_ms=0, after=after, count=count, own=True)
        if taken.trimmed:
            ids = [entry_id for entry_id, _ in taken.trimmed]
            _log.warning("entries of %s were trimmed while pending (%d): %s", name, len(ids), ids[:10])
            await self._acknowledge_deleted(name, taken.trimmed)
        entries = await self._counted(name, [entry for entry in taken.entries if position.is_new(entry)])
        position.looked(name, taken.last, entries)
        return entries

    async def _read(self, streams: Sequence[str], block_ms: int, count: int) -> list[Entry]:
        latest = [">"] * len(streams)
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count, "BLOCK", block_ms)
        timeout_s = block_ms / 1000 + READ_MARGIN_S
        reply = await self._once.call(*command, "STREAMS", *streams, *latest, timeout_s=timeout_s)
        by_stream = reply.items() if isinstance(reply, dict) else reply or ()  # RESP3, RESP2
        return [
            Entry(name.decode(), entry_id.decode(), fields or [])
            for name, records in by_stream
            for entry_id, fields in records
        ]

    async def _counted(self, stream: str, entries: Sequence[Entry]) -> list[Entry]:
        """Raise the delivery counts; return the entries that nobody took over meanwhile."""
        starts = [(entry.id, entry.deliveries) for entry in entries]
        counts = await self._claims.count_start(stream, starts)
        return [entry for entry, count in zip(entries, counts, strict=True) if count >= 0]

    async def _acknowledge_deleted(self, stream: str, trimmed: Sequence[tuple[str, int]]) -> None:
        if trimmed:
            await self._client.call("XACK", stream, self._group, *(entry_id for entry_id, _ in trimmed))

    async def _recreate(self, position: ReadPosition) -> None:
        for name in position.streams:
            try:
                created = await self.setup_group(name)
            except RedisUnavailable:
                continue  # the next read finds out
            if created and position.last[name]:
                position.begun_anew(name)
                _log.warning("group %s of %s was destroyed and begins anew", self._group, name)
        await asyncio.sleep(RECREATED_PAUSE_S)

    def _name(self, stream: str) -> str:
        return stream if self._names.domain_of(stream) else self._names.stream(stream, "")


class _Outages(Observer):
    """One line when Redis goes away, one when it is back."""

    def outage_began(self, role: str, error: str) -> None:
        _log.error("reading is interrupted, trying again: %s", error)

    def outage_ended(self, seconds: float) -> None:
        _log.info("reading goes on after %.1f s", seconds)


_CLOCK = Clock(time.monotonic, lambda: time.time_ns() // 1_000_000, random.random)
