"""One call for a step of a job: durable, in the job's state, and live."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from redis.asyncio import Redis

from event_router.core.channels import Channels
from event_router.core.decoding import MAX_ENTRY_BYTES
from event_router.core.encoding import Encoder, ProducedEvent, members_of, registry_of
from event_router.core.errors import ConfigurationError, RedisRefused
from event_router.core.handler import EventHandler
from event_router.core.job_step import PROGRESS
from event_router.core.json_object import json_object
from event_router.core.keys import KeyNames
from event_router.core.payloads import check_identifier
from event_router.core.registry import HandlerRegistry
from event_router.messaging.direct_step import DirectSteps
from event_router.messaging.preparing import Preparer
from event_router.messaging.sending import Sender


class CompositeEventBus:
    """Emits the events of jobs.

        bus = CompositeEventBus(streams_redis, pubsub_redis)
        await bus.emit("scan", "job-1", {"stage": "read", "status": "running", "seq": 1, "progress": 25})

    An event goes to the stream of its job. From there the router brings the job's state up to date and, by
    way of the fan-out log, publishes the step on the job's channel: both exactly once, in the order of `seq`.
    With `direct` the state and the message are written together with the entry, before any router has run;
    the router finds the step recorded and repeats neither.

    Args:
        streams_redis: a client of the streams Redis; its address, user and connections are used, its
            retries not.
        pubsub_redis: a client of the Pub/Sub Redis, on which routers publish.
        handlers: the handlers that take the events, or a registry of them: types and payloads are checked.
        names: the router's names, where they are not the default ones: `settings.load().key_names`.
        retries: how often an event is sent again where no reply came, after 100 ms, 200 ms, …; every event
            without an `id` then gets one.
        max_entry_bytes: the router's `MAX_ENTRY_BYTES`.
        timeout_s: how long one attempt may take, in seconds.
        new_id, now_ms, random: where ids, times (epoch milliseconds) and jitter (0 to 1) come from.
    """

    def __init__(
        self,
        streams_redis: Redis,
        pubsub_redis: Redis,
        *,
        handlers: HandlerRegistry | Iterable[EventHandler] | None = None,
        names: KeyNames | None = None,
        retries: int = 0,
        max_entry_bytes: int = MAX_ENTRY_BYTES,
        timeout_s: float = 5.0,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[], float] = random.random,
    ) -> None:
        if retries < 0 or timeout_s <= 0:
            raise ConfigurationError("timeout_s must be positive, retries not negative")
        self._names = names or KeyNames()
        encoder = Encoder(registry_of(handlers), max_entry_bytes=max_entry_bytes)
        self._preparer = Preparer(encoder, self._names, new_id=new_id if retries else None, now_ms=now_ms)
        self._streams = Sender(streams_redis, timeout_s=timeout_s, attempts=retries + 1, random=random)
        self._pubsub = Sender(pubsub_redis, timeout_s=timeout_s, attempts=1, random=random)
        self._direct = DirectSteps(self._names)
        self._channels = Channels(self._names.job_channel_template)

    def __repr__(self) -> str:
        return f"<CompositeEventBus {self._names.stream_template} {self._names.job_state_template}>"

    async def emit(self, domain: str, job_id: str, event: ProducedEvent, *, direct: bool = False) -> str:
        """Emit an event of a job and return the id of its entry.

        Args:
            event: without a `type` it is `progress`, without a `job_id` it is this job's.
            direct: write state and message too; only for `progress`, whose step has `stage`, `status` and
                `seq`. With an `id` it may be repeated for an hour: the first entry's id comes back.

        Raises:
            InvalidEvent: the router would dead-letter it; nothing was sent.
            OutcomeUnknown: no reply came. With an `id` it may be emitted again, without one it may count
                twice.
            RedisUnavailable: nothing was written; Redis cannot be reached or refuses for now.
            RedisRefused: nothing was written, and trying again will not mend it.
        """
        entry = self._preparer.prepare_for_job(domain, job_id, _typed(members_of(event)))
        if not direct:
            command = ("XADD", entry.stream, "*", *entry.fields)
            return await self._streams.send(entry.stream, lambda: self._streams.call(*command))
        keys, arguments = self._direct.command(entry, check_identifier("job_id", job_id))
        return await self._streams.send(
            entry.stream, lambda: self._direct.write(self._streams, keys, arguments)
        )

    async def state(self, domain: str, job_id: str) -> dict[str, str] | None:
        """Return the latest state of a job as text, or None where there is none any more.

        Raises RedisUnavailable, RedisRefused (the key is no hash: an older service's JSON, perhaps) and
        OutcomeUnknown where no reply came.
        """
        key = self._names.job_state(domain, check_identifier("job_id", job_id))
        try:
            found: Any = await self._streams.call("HGETALL", key)
        except RedisRefused as error:
            raise RedisRefused(f"{key}: {error}") from error
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        fields = {_text(name): _text(value) for name, value in pairs}
        return fields or None

    async def watchers(self, job_id: str) -> int:
        """Return how many listen to the job's channel now; subscribers by pattern are not counted.

        Raises as `state`.
        """
        channel = self._channels.job(job_id)
        return int((await self._pubsub.call("PUBSUB", "NUMSUB", channel))[1])


def _typed(members: Mapping[str, object]) -> Mapping[str, object]:
    if members.get("type") is not None:
        return members
    data = members.get("data")
    if isinstance(data, str | bytes):
        data = json_object("data", data)
    if isinstance(data, Mapping) and data.get("type") is not None:
        return members
    return {**members, "type": PROGRESS}


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
