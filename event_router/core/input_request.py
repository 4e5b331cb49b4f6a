"""A question put to the user of a job: its id, its record, and how an answer is written down.

The record is the hash `input:request:{job_id}:{n}`. Handlers write it through `human_input`, services
beside the router through `patterns.HumanInput`; both keep to what stands here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from event_router.core.errors import (
    InvalidEvent,
    InvalidRequest,
    InvalidSchema,
    InvalidState,
    ValueMisfit,
)
from event_router.core.json_schema import check_schema, misfit
from event_router.core.keys import OWN_PREFIX
from event_router.core.payloads import check_identifier, check_text
from event_router.core.timestamps import format_time, shortened

DOMAIN = "chat"
"""Whose stream carries the events of human input."""
PENDING, ANSWERED, EXPIRED = "pending", "answered", "expired"
KEPT_S = 24 * 3600
"""How long a request is kept beyond its time, so that whoever comes late is told what became of it."""
DEFAULT_TIMEOUT_S = 3600.0
MAX_TIMEOUT_S = 365 * 24 * 3600.0

INDEX = f"{OWN_PREFIX}:input:open"
"""Sorted set: the ids of open requests by the epoch milliseconds at which they expire."""
OPENED = f"{OWN_PREFIX}:input:opened"
"""Stream: requests that commits opened and the index does not hold yet."""
SETTLED = f"{OWN_PREFIX}:input:settled"
"""Stream: the ids of requests that were answered or expired; it wakes those who wait."""
OPENED_MAXLEN, SETTLED_MAXLEN = 100_000, 10_000

_ENDS_LIKE_AN_ID = re.compile(r":[0-9]+\Z")
_ID = re.compile(r"(?:(.*):)?([1-9][0-9]{0,8})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RequestId:
    """`{job_id}:{n}`: the n-th question of a job, from 1 on."""

    job_id: str
    number: int

    def __str__(self) -> str:
        return f"{self.job_id}:{self.number}"


def check_job(job_id: object) -> str:
    """Return the id of a job that may put questions.

    Raises:
        InvalidRequest: it is no identifier, or ends like a request's id, whose key it would share.
    """
    try:
        text = check_identifier("job_id", job_id)
    except InvalidEvent as error:
        raise InvalidRequest(str(error)) from None
    if _ENDS_LIKE_AN_ID.search(text):
        raise InvalidRequest(
            f"job {shortened(text)} ends like the id of a request, with which it would share a key;"
            " give jobs that ask ids that do not end in a colon and digits"
        )
    return text


def parse_request_id(text: object, job_id: str | None = None) -> RequestId:
    """Return the parts of `{job_id}:{n}`; where the job is known, `{n}` alone will do.

    Raises:
        InvalidRequest: it is no such id, or that of another job.
    """
    found = _ID.fullmatch(text) if isinstance(text, str) else None
    if found is None or (found[1] is None and job_id is None):
        raise InvalidRequest(f"{shortened(text)} is no id of a request; write it as {{job_id}}:{{n}}")
    if job_id is not None and found[1] not in (None, job_id):
        raise InvalidRequest(f"request {shortened(text)} is none of job {shortened(job_id)}")
    return RequestId(check_job(found[1] or job_id), int(found[2]))


def parse_schema(text: str | None) -> dict[str, Any] | bool:
    """Return the schema in its JSON text; everything fits where there is none.

    Raises:
        InvalidSchema: it is no JSON, or not a schema that can be checked.
    """
    if not text:
        return True
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidSchema(f"schema {shortened(text)} is no JSON: {error}") from None
    check_schema(schema)
    return schema  # type: ignore[no-any-return]  # checked


def encoded_schema(schema: Mapping[str, Any] | None) -> str:
    """Return a schema's JSON text, "" for none. Raises InvalidSchema."""
    if schema is None:
        return ""
    text = _json(schema)
    if text is None:
        raise InvalidSchema(f"schema {shortened(schema)} cannot be written as JSON")
    parse_schema(text)
    try:
        check_text("schema", text)
    except InvalidEvent as error:
        raise InvalidSchema(str(error)) from None
    return text


def interpreted(text: str | None, schema: Mapping[str, Any] | bool) -> Any:
    """Return the value that an answer's text stands for.

    That is the JSON in it if it fits the schema, else the text itself: `42` is a number, but a text where
    the schema wants one. No text at all is null.

    Raises:
        ValueMisfit: neither fits.
    """
    problem = None
    try:
        value = None if text is None else msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    else:
        problem = misfit(value, schema)
        if problem is None:
            return value
    if text is not None:
        as_text = misfit(text, schema)
        if as_text is None:
            return text
        problem = problem or as_text
    raise ValueMisfit(problem or "the value does not fit")


def encoded_value(value: object, schema: Mapping[str, Any] | bool) -> str:
    """Return the text from which `interpreted` makes the value again.

    Raises:
        ValueMisfit: it is no JSON value, does not fit the schema, or is longer than 64 kB.
    """
    text = _json(value)
    if text is None:
        raise ValueMisfit(f"value {shortened(value)} is nothing that JSON can hold")
    if problem := misfit(value, schema):
        raise ValueMisfit(problem)
    if isinstance(value, str) and _json_in(value) is None:
        text = value
    try:
        check_text("value", text)
    except InvalidEvent as error:
        raise ValueMisfit(str(error)) from None
    return text


def _json(value: object) -> str | None:
    """Return a value as JSON text; None for what JSON would not give back as it was."""
    try:
        text = msgspec.json.encode(value)
        return text.decode() if msgspec.json.decode(text) == value else None
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return None


def _json_in(text: str) -> tuple[Any] | None:
    try:
        return (msgspec.json.decode(text),)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class InputRequest:
    """A question as it stands.

    Attributes:
        request_id: `{job_id}:{n}`.
        owner: the user who was asked; nobody else may answer.
        schema: what the answer must fit, in JSON Schema (see `json_schema`); True where anything does.
        status: `pending`, `answered` or `expired`.
        expires_ms: epoch milliseconds by the clock of the Redis server.
        value: the answer, None as long as there is none.
    """

    request_id: str
    job_id: str
    owner: str
    prompt: str
    schema: Mapping[str, Any] | bool
    status: str
    requested_at: str
    expires_ms: int
    value: Any = None
    answered_at: str | None = None

    @property
    def expires_at(self) -> str:
        """Until when it can be answered, as `YYYY-MM-DDTHH:MM:SS.mmmZ`."""
        return format_time(self.expires_ms)

    def row(self) -> dict[str, Any]:
        """Return what the command line shows of it."""
        names = ("request_id", "job_id", "owner", "status", "prompt", "schema", "requested_at", "expires_at")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> InputRequest:
        """Return the request in a stored hash. Raises InvalidState where it holds something else."""
        try:
            schema = parse_schema(fields["schema"])
            answered = fields["status"] == ANSWERED
            return cls(
                **{name: fields[name] for name in ("request_id", "job_id", "owner", "prompt", "status")},
                schema=schema,
                requested_at=fields["requested_at"],
                expires_ms=int(fields["expires_ms"]),
                value=interpreted(fields["value"], schema) if answered else None,
                answered_at=fields["answered_at"] if answered else None,
            )
        except (KeyError, ValueError, InvalidSchema, ValueMisfit) as error:
            name = fields.get("request_id", "")
            raise InvalidState(f"the stored request {shortened(name)} is damaged: {error!r}") from None
