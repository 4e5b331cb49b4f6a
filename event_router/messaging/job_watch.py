"""A job's steps as they happen: its state first, then live messages, and the state again where they fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from event_router.core.channels import Channel
from event_router.core.errors import EventRouterError, OutcomeUnknown, RedisRefused, RedisUnavailable
from event_router.core.job_step import ends_job
from event_router.core.keys import KeyNames
from event_router.messaging.messages import Gap, Message
from event_router.messaging.subscriber import EventSubscriber
from event_router.redis_client.sent_once import SentOnce
from event_router.runtime.cancelling import end

FAILED_STATUSES = frozenset({"failed", "error", "cancelled", "canceled", "aborted", "expired"})
"""A message with one of these is a hint to look at the state, which knows whether it is the end."""
SILENCE_S = 5.0
LAST_SILENCE_S = 1.0
"""What may still be on its way when the state says that the job has ended is waited for so long."""

_log = logging.getLogger("event_router")


@dataclass(frozen=True, slots=True)
class JobStep:
    """A step of a job.

    Attributes:
        terminal: whether it is the job's last one.
        live: whether it came as a message; else it is what the state says.
    """

    job_id: str
    domain: str
    stage: str
    status: str
    seq: int
    progress: str
    message: str
    result: str
    timestamp: str
    terminal: bool
    live: bool

    @property
    def succeeded(self) -> bool:
        """Whether it ended the job well."""
        return self.terminal and self.status not in FAILED_STATUSES


class JobGone(EventRouterError):
    """The state of a job expired, or was deleted, before its end was seen."""


class JobWatch:
    """Watches one job to its end.

    It subscribes before it reads the state, so that no step falls between the two. After a gap, and after
    some seconds of silence, it reads the state again: it sees the end also while Pub/Sub is down. A step
    is given once: what is not newer than the last one is left out.

    Args:
        streams: a client of the Redis with the state.
        pubsub: a client of the Pub/Sub Redis.
        domains: where the job may be; its state is `{domain}:state:{job_id}`.
        names: the router's templates.
        silence_s: after so many seconds without a message the state is read; None for 5.
        timeout_s: how long one command may take, in seconds.
        unknown: called once, when there is no state of the job at the start.
    """

    def __init__(
        self,
        streams: Redis,
        pubsub: Redis,
        job_id: str,
        *,
        domains: Iterable[str],
        names: KeyNames | None = None,
        silence_s: float | None = None,
        timeout_s: float = 5.0,
        unknown: Callable[[], None] | None = None,
    ) -> None:
        self._unknown = unknown
        self._names = names or KeyNames()
        self._once = SentOnce(streams)
        self._pubsub = pubsub
        self._job_id = job_id
        self._domains = tuple(domains)
        # A template without {domain} gives one key for all of them.
        self._keys = {self._names.job_state(domain, job_id): domain for domain in reversed(self._domains)}
        self._silence_s = SILENCE_S if silence_s is None else silence_s
        self._timeout_s = timeout_s
        self._last: JobStep | None = None

    def __repr__(self) -> str:
        return f"<JobWatch {self._job_id}, last {self._last!r}>"

    async def steps(self) -> AsyncGenerator[JobStep, None]:
        """Iterate over the steps, the latest first; ends after the terminal one. Waits for a job unknown yet.

        Raises:
            RedisUnavailable: the state cannot be read at the start; later it is tried again.
            RedisRefused: the state is no hash.
            JobGone: there was a state, and there is none any more.
        """
        arriving: asyncio.Queue[Message | Gap] = asyncio.Queue(maxsize=1)
        async with EventSubscriber(self._pubsub, timeout_s=self._timeout_s) as subscriber:
            subscribed = await self._subscribe(subscriber)
            pump = asyncio.create_task(self._pump(subscriber, arriving, subscribed), name="job-watch")
            try:
                state = await self._read()
                if state is None and self._unknown is not None:
                    self._unknown()
                while True:
                    if state is not None and self._is_newer(state):
                        self._last = state
                        yield state
                        if state.terminal:
                            return
                    state = None
                    step = await self._next(arriving, self._silence_s)
                    if step is None:
                        state = await self._read_again()
                    elif step.terminal and (found := await self._end()) is not None:
                        async for last in self._until(found, step, arriving):
                            yield last
                        return
                    elif self._is_newer(step := replace(step, terminal=False)):
                        self._last = step
                        yield step
            finally:
                await end(pump)

    async def _until(
        self, end: JobStep, step: JobStep | None, arriving: asyncio.Queue[Message | Gap]
    ) -> AsyncGenerator[JobStep, None]:
        """Iterate over the steps that are still on their way before the end, and the end."""
        while step is not None and (step.seq, step.status) != (end.seq, end.status):
            step = replace(step, terminal=False)
            if self._is_newer(step):
                self._last = step
                yield step
            step = await self._next(arriving, LAST_SILENCE_S)
        self._last = replace(end, live=step is not None)
        yield self._last

    def _is_newer(self, step: JobStep) -> bool:
        last = self._last
        return last is None or (step.terminal, step.seq) > (last.terminal, last.seq)

    async def _subscribe(self, subscriber: EventSubscriber) -> bool:
        try:
            await subscriber.subscribe(Channel(self._names.job_channel(self._job_id)))
        except RedisUnavailable as error:
            _log.warning("no live messages for now, the state is read every %g s: %s", self._silence_s, error)
            return False
        return True

    async def _pump(
        self, subscriber: EventSubscriber, arriving: asyncio.Queue[Message | Gap], subscribed: bool
    ) -> None:
        if not subscribed:
            channel = Channel(self._names.job_channel(self._job_id))
            while not subscribed:
                await asyncio.sleep(self._silence_s)
                try:
                    await subscriber.subscribe(channel)
                    subscribed = True
                except RedisUnavailable as error:
                    _log.debug("no live messages yet: %s", error)
            await arriving.put(Gap(reconnected=True))
        async for item in subscriber.listen():
            await arriving.put(item)

    async def _next(self, arriving: asyncio.Queue[Message | Gap], silence_s: float) -> JobStep | None:
        """Return the next live step; None when the state must be read: after a gap, or silence."""
        try:
            async with asyncio.timeout(silence_s):
                while True:
                    item = await arriving.get()
                    if isinstance(item, Gap):
                        return None
                    step = self._step_of(item)
                    if step is not None:
                        return step
        except TimeoutError:
            return None

    async def _end(self) -> JobStep | None:
        """Return the terminal step if the state says that the job has ended."""
        state = await self._read_again()
        return state if state is not None and state.terminal else None

    async def _read_again(self) -> JobStep | None:
        try:
            state = await self._read()
        except (RedisUnavailable, OutcomeUnknown) as error:
            _log.warning("the state of job %s cannot be read for now: %s", self._job_id, error)
            return None
        if state is None and self._last is not None:
            raise JobGone(
                f"the state of job {self._job_id!r} expired or was deleted; its last step seen was"
                f" {self._last.stage} {self._last.status}"
            )
        return state

    async def _read(self) -> JobStep | None:
        found = []
        for key, domain in self._keys.items():
            try:
                reply: Any = await self._once.call("HGETALL", key, timeout_s=self._timeout_s)
            except OutcomeUnknown as error:
                raise RedisUnavailable(f"{key}: {error}") from error
            except RedisRefused as error:
                raise RedisRefused(f"{key}: {error}") from error
            flat = [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else reply
            words = [word.decode("utf-8", "backslashreplace") for word in flat]
            if words:
                found.append(self._step_in(domain, dict(zip(words[::2], words[1::2], strict=True))))
        return max(found, key=lambda step: (step.terminal, step.seq), default=None)

    def _step_in(self, domain: str, fields: dict[str, str]) -> JobStep:
        return JobStep(
            self._job_id,
            domain,
            fields.get("stage", ""),
            fields.get("status", ""),
            _number(fields.get("seq")),
            fields.get("progress", ""),
            fields.get("message", ""),
            fields.get("result", ""),
            fields.get("updated_at", ""),
            terminal=fields.get("version", "").startswith("1:"),
            live=False,
        )

    def _step_of(self, message: Message) -> JobStep | None:
        data = message.data
        status = data.get("status")
        if not isinstance(status, str):
            return None  # no step, but something else about the job
        if data.get("domain", "") not in ("", *self._domains):
            return None  # of another domain's job, whose id is the same
        texts = {name: _text(data.get(name)) for name in ("domain", "stage", "progress", "message", "result")}
        return JobStep(
            job_id=self._job_id,
            status=status,
            seq=_number(data.get("seq")),
            timestamp=message.timestamp,
            terminal=ends_job(status) or status in FAILED_STATUSES or data.get("terminal") is True,
            live=True,
            **texts,
        )


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0
