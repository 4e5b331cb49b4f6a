"""Adding events to streams from services: checked before they are sent, and sent once."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterable
from itertools import islice

from redis.asyncio import Redis

from event_router.core.cloudevents import Mode
from event_router.core.decoding import MAX_ENTRY_BYTES
from event_router.core.encoding import Encoder, ProducedEvent, registry_of
from event_router.core.errors import ConfigurationError, InvalidEvent
from event_router.core.handler import EventHandler
from event_router.core.keys import KeyNames
from event_router.core.registry import HandlerRegistry
from event_router.messaging.preparing import SHARDS, Prepared, Preparer
from event_router.messaging.sending import BATCH, Command, Sender

MAXLEN = 10_000
"""About how many entries a stream keeps that no router trims."""


class StreamProducer:
    """Adds events to the router's streams.

        producer = StreamProducer(redis, handlers=[OrderHandler()], maxlen=None)
        entry_id = await producer.produce("orders", {"type": "paid", "customer_id": "7", "cents": 250})

    An event is a mapping (or a msgspec struct) with its `type`, the fields of its payload and, if wanted,
    `id`, `timestamp` (event time), `traceparent` and `data` (a JSON object with more fields). What the
    router would dead-letter is refused before anything is sent; unless handlers are given, only what can
    be known without them. A stream is named by its domain (`orders`) or in full (`events:orders`).

    Every event is sent once: where no reply comes the caller gets OutcomeUnknown. An event with an `id` can
    be sent again: in a stream, the router counts an `id` once. With `retries` the producer does so itself.

    Args:
        redis: a client of the streams Redis; its address, user and connections are used, its retries not.
        handlers: the handlers that take the events, or a registry of them: types and payloads are checked.
        maxlen: about how many entries a stream keeps, whether they were read or not. None where a router
            reads the stream: it trims what is settled, and only that.
        retries: how often an event is sent again where no reply came, after 100 ms, 200 ms, …; every event
            without an `id` then gets one.
        cloudevents: write CloudEvents 1.0, `structured` or `binary`, instead of a field for each member.
        source: the CloudEvents' `source`, such as `/services/chat`.
        names: the router's names, where they are not the default ones: `settings.load().key_names`, or
            `KeyNames(stream_template="{domain}:events:{shard}", shards={"chat": 4})`.
        max_entry_bytes: the router's `MAX_ENTRY_BYTES`.
        timeout_s: how long one attempt may take, or one batch of 500 events, in seconds.
        new_id, now_ms, random: where ids, times (epoch milliseconds) and jitter (0 to 1) come from.

    Raises:
        ConfigurationError: the arguments contradict each other or a handler is malformed.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        handlers: HandlerRegistry | Iterable[EventHandler] | None = None,
        maxlen: int | None = MAXLEN,
        retries: int = 0,
        cloudevents: Mode | None = None,
        source: str = "",
        names: KeyNames | None = None,
        max_entry_bytes: int = MAX_ENTRY_BYTES,
        timeout_s: float = 5.0,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[], float] = random.random,
    ) -> None:
        if (maxlen is not None and maxlen < 1) or retries < 0 or timeout_s <= 0:
            raise ConfigurationError("maxlen and timeout_s must be positive, retries not negative")
        self._names = names or KeyNames()
        encoder = Encoder(
            registry_of(handlers),
            max_entry_bytes=max_entry_bytes,
            form=cloudevents or "fields",
            source=source,
            new_id=new_id,
        )
        self._preparer = Preparer(encoder, self._names, new_id=new_id if retries else None, now_ms=now_ms)
        self._sender = Sender(redis, timeout_s=timeout_s, attempts=retries + 1, random=random)
        self._trim = () if maxlen is None else ("MAXLEN", "~", maxlen)

    def __repr__(self) -> str:
        trim = f"maxlen={self._trim[-1]}" if self._trim else "no maxlen"
        return f"<StreamProducer {self._names.stream_template} {trim}>"

    async def produce(self, stream: str, event: ProducedEvent) -> str:
        """Add an event to a stream and return the entry's id.

        Raises:
            InvalidEvent: the router would dead-letter it: the reason, and which field; nothing was sent.
            OutcomeUnknown: no reply came. With an `id` it may be produced again, without one it may count
                twice.
            RedisUnavailable: it was not added; Redis cannot be reached or refuses for now.
            RedisRefused: it was not added, and trying again will not mend it.
        """
        return await self._add(self._preparer.prepare(stream, event))

    async def produce_to_shard(
        self, domain: str, job_id: str, event: ProducedEvent, shard_count: int | None = None
    ) -> str:
        """Add a job's event to the shard of its job, and return the entry's id.

        Args:
            job_id: also the event's `job_id`, where it has none.
            shard_count: how many shards the domain has; by default what `shards` says, else 4. Routers
                read the shards that their setting `SHARDS` names.

        Raises:
            ConfigurationError: `shards` says another number.
            InvalidEvent, OutcomeUnknown, RedisUnavailable, RedisRefused: as `produce`.
        """
        if shard_count is None:
            shard_count = self._names.shards.get(domain, SHARDS)
        return await self._add(self._preparer.prepare_for_job(domain, job_id, event, shard_count))

    async def produce_many(self, stream: str, events: Iterable[ProducedEvent]) -> list[str]:
        """Add events in batches of 500 over one connection, and return the ids of their entries in order.

        All are checked first: if one is refused, none is sent.

        Raises:
            InvalidEvent: says which event it is about, counted from 0.
            ProducedInPart: some were added, or may have been; it says of each what is known.
            RedisUnavailable, RedisRefused: none was added.
        """
        commands: list[Command] = []
        rest = iter(events)
        while part := list(islice(rest, BATCH)):
            for event in part:
                try:
                    commands.append(self._command(self._preparer.prepare(stream, event)))
                except InvalidEvent as error:
                    raise InvalidEvent(f"event {len(commands)}: {error}", error.reason) from None
            await asyncio.sleep(0)
        return await self._sender.send_many(commands)

    async def _add(self, entry: Prepared) -> str:
        command = self._command(entry)
        return await self._sender.send(entry.stream, lambda: self._sender.call(*command))

    def _command(self, entry: Prepared) -> Command:
        return ("XADD", entry.stream, *self._trim, "*", *entry.fields)
