"""Requests for input as they stand in Redis: each change is one script, with the event that tells of it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence

from event_router.core.errors import InvalidRequest, RedisRefused
from event_router.core.input_request import (
    DOMAIN,
    INDEX,
    KEPT_S,
    OPENED,
    SETTLED,
    SETTLED_MAXLEN,
    InputRequest,
    RequestId,
    parse_request_id,
)
from event_router.core.keys import KeyNames
from event_router.core.timestamps import format_time
from event_router.redis_client.script import Caller, Script

AT_ONCE = 100
"""Requests looked at in one step."""

_log = logging.getLogger("event_router")


def new_token() -> str:
    """Return a text that no two calls have in common."""
    return uuid.uuid4().hex


class InputStore:
    """The scripts of human input over one caller. Each may be sent again: with its token it counts once.

    Methods raise what the caller raises, and InvalidState for a record that is damaged.

    Args:
        names: where streams are; the router's.
        token: gives a new text each time, of which no two are alike.
    """

    def __init__(self, caller: Caller, names: KeyNames, token: Callable[[], str] = new_token) -> None:
        self._caller = caller
        self._names = names
        self.token = token
        self._ask, self._close = (
            Script(name, "event_router.patterns", ("refusal",)) for name in ("ask_input", "close_input")
        )
        self._open, self._read, self._collect = (
            Script(name, "event_router.patterns") for name in ("open_inputs", "read_inputs", "collect_input")
        )

    async def ask(
        self,
        job_id: str,
        *,
        number: int | None,
        owner: str,
        prompt: str,
        schema: str,
        timeout_s: float,
        now_ms: int,
        token: str,
    ) -> RequestId:
        """Put a question, unless it is put already, and return its id."""
        names = self._names
        keys = (names.input_request(job_id), names.interaction(job_id), INDEX, names.stream(DOMAIN, job_id))
        timeout_ms = max(1, int(timeout_s * 1000))
        expires_ms = now_ms + timeout_ms
        times = (format_time(now_ms), format_time(expires_ms), expires_ms, timeout_ms + KEPT_S * 1000)
        given = "" if number is None else number
        arguments = (given, token, job_id, owner, prompt, schema, *times, timeout_ms / 1000)
        return RequestId(job_id, int(await self._ask.run(self._caller, keys, arguments)))

    async def read(self, *requests: RequestId) -> tuple[int, list[InputRequest | None]]:
        """Return the server's epoch milliseconds, and each request as it stands, None where there is none."""
        now, *records = await self._read.run(self._caller, [self._key(request) for request in requests])
        return int(now), [_parsed(flat) for flat in records]

    async def close(
        self, request: RequestId, *, now_ms: int, token: str, user: str = "", value: str = ""
    ) -> str:
        """Answer a request as a user, or let it expire if its time is over.

        Returns `answered`, `answered before`, `expired`, `not due`, `unknown` or `stranger`.
        """
        names, job_id = self._names, request.job_id
        keys = (
            self._key(request),
            names.input_request(job_id),
            names.interaction(job_id),
            INDEX,
            names.stream(DOMAIN, job_id),
            SETTLED,
        )
        arguments = (token, str(request), job_id, SETTLED_MAXLEN, format_time(now_ms), user, value)
        outcome: bytes = await self._close.run(self._caller, keys, arguments)
        return outcome.decode()

    async def collect(self, request: RequestId) -> None:
        """Note that whoever asked has received what became of the request."""
        await self._collect.run(self._caller, (self._key(request),))

    async def pending(self, limit: int) -> list[InputRequest]:
        """Return the requests that wait, those that expire first, at most so many."""
        found: list[InputRequest] = []
        skip = 0
        while len(found) < limit:
            now_ms, ids = await self._ids("all", skip)
            skip += len(ids)
            requests = [request for request in map(_parsed_id, ids) if request is not None]
            if requests:
                _, stored = await self.read(*requests)
                found += [
                    one for one in stored if one and one.status == "pending" and one.expires_ms > now_ms
                ]
            if len(ids) < AT_ONCE:
                break
        return found[:limit]

    async def expire_due(self, beat: Callable[[], None] = lambda: None) -> int:
        """Let every request expire whose time is over; return how many did here.

        A request that Redis refuses to change is logged and left; the others go on.
        """
        expired = skip = 0
        while True:
            now_ms, ids = await self._ids("due", skip)
            for name in ids:
                beat()
                outcome = await self._expire(name, now_ms)
                expired += outcome == "expired"
                skip += outcome in ("refused", "not due")
            if len(ids) < AT_ONCE:
                return expired

    async def _expire(self, name: str, now_ms: int) -> str:
        request = _parsed_id(name)
        if request is None:
            await self._caller.call("ZREM", INDEX, name)
            return "unknown"
        try:
            return await self.close(request, now_ms=now_ms, token=self.token())
        except RedisRefused as error:
            _log.error("input request %s cannot expire: %s", request, error)
            return "refused"

    async def _ids(self, which: str, skip: int) -> tuple[int, list[str]]:
        now, *ids = await self._open.run(self._caller, (INDEX, OPENED), (which, skip, AT_ONCE))
        return int(now), [name.decode("utf-8", "surrogateescape") for name in ids]

    def _key(self, request: RequestId) -> str:
        return self._names.input_request(request.job_id, request.number)


def _parsed(flat: Sequence[bytes]) -> InputRequest | None:
    texts = [part.decode("utf-8", "surrogateescape") for part in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    return InputRequest.of(fields) if fields else None


def _parsed_id(name: str) -> RequestId | None:
    try:
        return parse_request_id(name)
    except InvalidRequest:
        return None
