"""Human in the loop: a job asks its user for something and waits, however long and whoever restarts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis

from event_router.core.errors import (
    DifferentRequest,
    InvalidRequest,
    OutcomeUnknown,
    RedisUnavailable,
    UnknownRequest,
)
from event_router.core.input_request import (
    ANSWERED,
    DEFAULT_TIMEOUT_S,
    EXPIRED,
    MAX_TIMEOUT_S,
    InputRequest,
    RequestId,
    check_job,
    encoded_schema,
    encoded_value,
    parse_request_id,
    parse_schema,
)
from event_router.core.keys import KeyNames
from event_router.patterns.bounded import BoundedCalls
from event_router.patterns.input_checks import identifier, known_id, refusal, text_of
from event_router.patterns.input_feed import SettledFeed
from event_router.patterns.input_store import InputStore
from event_router.patterns.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience

LOOK_AGAIN_S = 15.0
"""How often a waiting call looks at its request although nothing woke it."""


class HumanInput:
    """Puts questions of jobs to their users, and takes the users' answers.

        value = await human_input.request_input("job-7", "123", "Which size?", {"enum": ["S", "M", "L"]}, 600)
        await human_input.answer("job-7:1", "123", "M")

    A question, its record, and the event `input_requested` of domain chat come into being in one step; so
    do an answer or expiry and its event. What counts is decided there, by the clock of the Redis server: of
    two answers the first, of an answer and the end of the time whichever came first. Routers publish the
    events to the job's channel. Everything is kept in Redis, nothing in the process that asks.

    Calls are repeated while Redis is away, and counted once. Each raises RedisUnavailable (OutcomeUnknown
    where it may have counted) when Redis has not answered for `patience_s`, RedisRefused for what trying
    again will not mend, InvalidState for a record that is damaged.

    Args:
        redis: a client of the Redis with the streams. Waiting takes one of its
            connections, however many wait.
        names: the names of streams, if they are not the default ones; those of the router.
        timeout_s: how long one command may take, in seconds.
        patience_s: how long Redis may be away before a call gives up, in seconds. A waiting call has until
            its request's time is over, and this much more.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        names: KeyNames | None = None,
        timeout_s: float = 5.0,
        patience_s: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = InputStore(BoundedCalls(redis, timeout_s), names or KeyNames())
        self._feed = SettledFeed(redis, chance)
        self._patience = Patience(patience_s, monotonic, chance)

    def __repr__(self) -> str:
        return f"<HumanInput {self._feed!r}>"

    async def request_input(
        self,
        job_id: str | int,
        owner: str | int,
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        *,
        request_id: str | None = None,
    ) -> Any:
        """Ask, wait, and return the value of the answer: `ask` and `wait` in one.

        Called again after a restart, it goes on waiting for the same request, or gives its outcome.

        Raises:
            RequestExpired: nobody answered in time.
        """
        request = await self.ask(job_id, owner, prompt, schema, timeout, request_id=request_id)
        return await self._wait(parse_request_id(request.request_id), timeout)

    async def ask(
        self,
        job_id: str | int,
        owner: str | int,
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        *,
        request_id: str | None = None,
    ) -> InputRequest:
        """Put a question unless it is put already, and return it as it stands, without waiting.

        Args:
            owner: the user who is asked.
            prompt: text of at most 64 kB.
            schema: what the answer must fit, in the part of JSON Schema that `core.json_schema` names.
            timeout: seconds from now on in which it can be answered, up to 365 days.
            request_id: `{job_id}:{n}`, to say which question of the job this is. Without it, the job's newest
                request goes on if it asks the same of the same user and nobody has received its outcome
                yet; else it is the job's next.

        Raises:
            InvalidRequest: job, owner, prompt, timeout or id is not possible.
            InvalidSchema: the schema is not.
            DifferentRequest: this id was used for another owner or schema.
        """
        job, user, text = check_job(job_id), identifier("owner", owner), text_of("prompt", prompt)
        wanted = encoded_schema(schema)
        if not 0.001 <= timeout <= MAX_TIMEOUT_S:
            raise InvalidRequest(
                f"timeout {timeout!r} is not possible: give 0.001 to {MAX_TIMEOUT_S:.0f} seconds"
            )
        number = None if request_id is None else parse_request_id(request_id, job).number
        token = self._store.token()
        now_ms, _ = await self._patience.call(self._store.read)
        given = await self._patience.call(
            lambda: self._store.ask(
                job,
                number=number,
                owner=user,
                prompt=text,
                schema=wanted,
                timeout_s=timeout,
                now_ms=now_ms,
                token=token,
            )
        )
        request = await self.get(str(given))
        if request is None:
            raise UnknownRequest(f"request {given} was put, and is gone: Redis has lost it")
        if request.owner != user or request.schema != parse_schema(wanted):
            raise DifferentRequest(
                f"request {given} was put to another user than {user!r} or with another schema; it stands"
            )
        return request

    async def wait(self, request_id: str) -> Any:
        """Wait until a request has its answer, and return the value.

        Raises:
            RequestExpired: nobody answered in time.
            UnknownRequest: there is no such request, or no longer.
        """
        return await self._wait(known_id(request_id), 0.0)

    async def answer(self, request_id: str, user: str | int, value: Any) -> None:
        """Answer a request. Returns once the answer counts for good.

        Args:
            value: text, number, boolean, None, list or dict, as JSON has them.

        Raises:
            UnknownRequest: there is no such request, or no longer.
            NotTheOwner: another user was asked.
            ValueMisfit: the value does not fit the schema, or is no JSON value.
            AlreadyAnswered: it has an answer.
            RequestExpired: its time is over.
            OutcomeUnknown: no reply came; calling again with the same value is answered by AlreadyAnswered
                if it counted.
        """
        given, who, token = known_id(request_id), identifier("user", user), self._store.token()
        now_ms, (request,) = await self._patience.call(lambda: self._store.read(given))
        if request is None:
            raise refusal(given, "unknown")
        if request.owner != who:
            raise refusal(given, "stranger")
        text = ""
        if request.status not in (ANSWERED, EXPIRED):
            text = encoded_value(value, request.schema)
        outcome = await self._patience.call(
            lambda: self._store.close(given, now_ms=now_ms, token=token, user=who, value=text)
        )
        if outcome != "answered":
            raise refusal(given, outcome)

    async def get(self, request_id: str) -> InputRequest | None:
        """Return a request as it stands, None where there is none."""
        given = known_id(request_id)
        _, (request,) = await self._patience.call(lambda: self._store.read(given))
        return request

    async def pending(self, limit: int = 100) -> list[InputRequest]:
        """Return the requests that wait for an answer, those that expire first, at most so many."""
        return await self._patience.call(lambda: self._store.pending(limit))

    async def expire_due(self) -> int:
        """Let requests expire whose time is over, and return how many did here.

        Routers of domain chat do this each second, and a waiting call for its own request.
        """
        return await self._patience.call(self._store.expire_due)

    async def _wait(self, given: RequestId, left_s: float) -> Any:
        pause = FIRST_PAUSE_S
        give_up = self._patience.until(left_s)
        async with self._feed.listening(str(given)) as woken:
            while True:
                woken.clear()
                try:
                    now_ms, (request,) = await self._store.read(given)
                    if request is None:
                        raise refusal(given, "unknown")
                    if request.status in (ANSWERED, EXPIRED):
                        await self._store.collect(given)
                        break
                    left_s = (request.expires_ms - now_ms) / 1000
                    if left_s <= 0:
                        await self._store.close(given, now_ms=now_ms, token=self._store.token())
                        continue
                except (RedisUnavailable, OutcomeUnknown) as error:
                    if self._patience.is_over(give_up):
                        raise RedisUnavailable(
                            f"request {given}: {error}; it may still be answered"
                        ) from error
                    await asyncio.sleep(self._patience.jittered(pause))
                    pause = min(LONGEST_PAUSE_S, pause * 2)
                    continue
                pause = FIRST_PAUSE_S
                give_up = self._patience.until(left_s)
                await _set_within(woken, min(left_s, self._patience.jittered(LOOK_AGAIN_S)))
        if request.status == EXPIRED:
            raise refusal(given, "expired")
        return request.value


async def _set_within(woken: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        pass
