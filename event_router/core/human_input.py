"""What handlers do with questions to a job's user: the requests' keys, changed with the event's commit.

`patterns.HumanInput` writes the same keys, each change together with the event that tells of it. Such an
event finds its change made, and only announces it: the field `announce_{what}` holds the event's own `id`
until then. So whichever comes first counts, an answer through the service or one in the stream, and both
sides see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from event_router.core.entity import Entity
from event_router.core.errors import InvalidRequest, InvalidSchema, InvalidState, Reject, ValueMisfit
from event_router.core.event import AnyEvent
from event_router.core.input_request import (
    ANSWERED,
    DEFAULT_TIMEOUT_S,
    EXPIRED,
    KEPT_S,
    OPENED,
    OPENED_MAXLEN,
    PENDING,
    SETTLED,
    SETTLED_MAXLEN,
    RequestId,
    check_job,
    interpreted,
    parse_request_id,
    parse_schema,
)
from event_router.core.keys import KeyNames, early_answers_key
from event_router.core.timestamps import format_time

EARLY_TTL_S = 3600.0
"""How long an answer waits for a question that another process has not committed yet."""


class _Emit(Protocol):
    def __call__(self, stream: str, *, maxlen: int | None = None, **fields: object) -> None: ...


class HumanInputState:
    """The questions of one job. Each method is one event's change, recorded for its commit.

    Raises:
        Reject: the event can never count; the message says why.
        InvalidState: a key holds something else.
    """

    __slots__ = ("_at", "_emit", "_event", "_job_id", "_names", "_publish")

    def __init__(
        self,
        job_id: str,
        *,
        event: AnyEvent,
        names: KeyNames,
        at: Callable[[str], Entity],
        publish: Callable[[str, Mapping[str, object]], None],
        emit: _Emit,
    ) -> None:
        try:
            self._job_id = check_job(job_id)
        except InvalidRequest as error:
            raise Reject(str(error)) from None
        self._event = event
        self._names = names
        self._at = at
        self._publish = publish
        self._emit = emit

    async def requested(
        self,
        *,
        owner: str,
        prompt: str = "",
        schema: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        request_id: str | None = None,
    ) -> None:
        """Put a question, under its own id or else the job's next. Put again, it changes nothing."""
        given = await self._next() if request_id is None else self._parsed(request_id)
        request = self._request(given)
        question = {"owner": owner, "prompt": prompt, "schema": schema or ""}
        if await request.get("status") is not None:
            if await self._is_echo(request, "requested"):
                await self._announce_request(given, request)
            elif question != dict(zip(question, await request.get(*question), strict=True)):
                raise Reject(f"request {given} was put before, with another owner, prompt or schema")
            return
        try:
            parse_schema(schema)
        except InvalidSchema as error:
            raise Reject(str(error)) from None
        expires_ms = self._event.time_ms + int(timeout_s * 1000)
        await self._open(
            given,
            {
                "request_id": str(given),
                "n": given.number,
                "job_id": self._job_id,
                "status": PENDING,
                **question,
                "requested_at": self._event.timestamp,
                "expires_at": format_time(expires_ms),
                "expires_ms": expires_ms,
            },
            timeout_s + KEPT_S,
        )
        await self._announce_request(given, request)
        await self._take_early_answer(given, request)

    async def received(self, *, user: str, value: str | None, request_id: str | None = None) -> None:
        """Take the answer of the user who was asked, to a request or else to the job's newest.

        An answer that overtook its question is kept until that comes.
        """
        given = await self._newest() if request_id is None else self._parsed(request_id)
        request = self._request(given)
        status = await request.get("status")
        if status is None:
            early = self._at(early_answers_key(str(given)))
            said = msgspec.json.encode([self._event.time_ms, value]).decode()
            early.set(**{f"of:{user}": said})
            early.expire(EARLY_TTL_S)
        elif await self._is_echo(request, "received"):
            self._announce("input_received", given, user, value=interpreted(value, await _schema(request)))
        elif await request.get("owner") != user:
            raise Reject(f"request {given} was put to another user than {user!r}")
        elif status == ANSWERED:
            if await request.get("value") != _text(value):
                raise Reject(f"request {given} is answered already")
        elif status == EXPIRED or self._event.time_ms > await _expires_ms(request):
            raise Reject(f"request {given} expired at {await request.get('expires_at')}")
        else:
            await self._answer(given, request, user, value)

    async def expired(self, *, request_id: str) -> None:
        """End a question whose time is over and that nobody has answered."""
        given = self._parsed(request_id)
        request = self._request(given)
        status, owner = await request.get("status", "owner")
        if await self._is_echo(request, "expired"):
            self._announce("input_expired", given, owner)
        elif status == PENDING:
            if self._event.time_ms < await _expires_ms(request):
                raise Reject(f"request {given} has time until {await request.get('expires_at')}")
            await self._close(given, request, status=EXPIRED)
            self._announce("input_expired", given, owner)

    async def _open(self, given: RequestId, record: dict[str, object], ttl_s: float) -> None:
        newest, interaction = self._newest_record(), self._at(self._names.interaction(self._job_id))
        places = {self._request(given): record}
        if given.number >= int(await _number(newest) or 0):
            places[newest] = record
            shown = ("request_id", "n", "owner", "status")
            places[interaction] = {name: record[name] for name in shown} | {
                "updated_at": self._event.timestamp
            }
        for place, fields in places.items():
            place.delete()
            place.set(**fields)
            place.expire(ttl_s)
        self._emit(OPENED, maxlen=OPENED_MAXLEN, request_id=str(given), expires_ms=record["expires_ms"])

    async def _take_early_answer(self, given: RequestId, request: Entity) -> None:
        owner = str(await request.get("owner"))
        said = await self._at(early_answers_key(str(given))).get(f"of:{owner}")
        if said is not None:
            time_ms, value = msgspec.json.decode(said, type=tuple[int, str | None])
            try:
                if time_ms <= await _expires_ms(request):
                    await self._answer(given, request, owner, value)
            except Reject:
                pass  # it does not fit: the question waits for another one

    async def _answer(self, given: RequestId, request: Entity, user: str, value: str | None) -> None:
        try:
            meant = interpreted(value, await _schema(request))
        except ValueMisfit as error:
            raise Reject(f"request {given}: {error}") from None
        moment = self._event.timestamp
        await self._close(given, request, status=ANSWERED, value=_text(value), answered_at=moment)
        self._announce("input_received", given, user, value=meant)

    async def _close(self, given: RequestId, request: Entity, **changes: object) -> None:
        request.set(**changes)
        newest = self._newest_record()
        if await _number(newest) == str(given.number):
            newest.set(**changes)
            interaction = self._at(self._names.interaction(self._job_id))
            interaction.set(status=changes["status"], updated_at=self._event.timestamp)
        self._emit(SETTLED, maxlen=SETTLED_MAXLEN, request_id=str(given))

    async def _is_echo(self, request: Entity, what: str) -> bool:
        """Whether the change was made by a service, and this is the event that tells of it."""
        field = f"announce_{what}"
        if self._event.producer_id is None or await request.get(field) != self._event.producer_id:
            return False
        request.delete(field)
        return True

    async def _announce_request(self, given: RequestId, request: Entity) -> None:
        owner, prompt, expires_at = await request.get("owner", "prompt", "expires_at")
        schema = await _schema(request)
        shown: dict[str, object] = {} if schema is True else {"schema": schema}
        self._announce("input_requested", given, owner, prompt=prompt, expires_at=expires_at, **shown)

    def _announce(self, type_: str, given: RequestId, user: str | None, **more: object) -> None:
        message = {
            "type": type_,
            "domain": self._event.domain,
            "job_id": self._job_id,
            "request_id": str(given),
            "user_id": user,
        }
        self._publish(self._names.job_channel(self._job_id), message | more)

    async def _next(self) -> RequestId:
        number = int(await _number(self._newest_record()) or 0) + 1
        while await self._request(RequestId(self._job_id, number)).get("status") is not None:
            number += 1  # the newest one's record is gone, an older one with more time is not
        return RequestId(self._job_id, number)

    async def _newest(self) -> RequestId:
        return RequestId(self._job_id, int(await _number(self._newest_record()) or 1))

    def _parsed(self, request_id: str) -> RequestId:
        try:
            return parse_request_id(request_id, self._job_id)
        except InvalidRequest as error:
            raise Reject(str(error)) from None

    def _request(self, given: RequestId) -> Entity:
        return self._at(self._names.input_request(self._job_id, given.number))

    def _newest_record(self) -> Entity:
        return self._at(self._names.input_request(self._job_id))


async def _number(newest: Entity) -> str | None:
    number = await newest.get("n")
    if number is not None and not (number.isascii() and number.isdecimal()):
        raise InvalidState(f"field 'n' of key {newest.key!r} is no number of a request")
    return number


async def _expires_ms(request: Entity) -> int:
    text = await request.get("expires_ms")
    if text is None or not text.isdecimal():
        raise InvalidState(f"field 'expires_ms' of key {request.key!r} is no time")
    return int(text)


async def _schema(request: Entity) -> dict[str, object] | bool:
    try:
        return parse_schema(await request.get("schema"))
    except InvalidSchema as error:
        raise InvalidState(f"field 'schema' of key {request.key!r}: {error}") from None


def _text(value: str | None) -> str:
    return "null" if value is None else value
