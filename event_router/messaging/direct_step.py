"""A job's event, its step and the message about it, written in one step before any router has run."""

from __future__ import annotations

from typing import Any

from event_router.core.decoding import opened
from event_router.core.effects import Newest, UnitOfWork
from event_router.core.errors import InvalidEvent
from event_router.core.job_step import PROGRESS, JobStep, ends_job
from event_router.core.keys import OWN_PREFIX, KeyNames
from event_router.core.payloads import PayloadType
from event_router.core.state import StateReader, StateTransaction
from event_router.core.values import text_bytes
from event_router.messaging.preparing import Prepared
from event_router.redis_client.script import Caller, Script

MARK_TTL_MS = 3_600_000
"""How long an id that was added is remembered."""

_STEP = PayloadType(JobStep)
_TIMESTAMP = '{"timestamp":"YYYY-MM-DDTHH:MM:SS.mmmZ"'


class DirectSteps:
    """Writes entries, and with each what the router's handler of `progress` would record and publish."""

    def __init__(self, names: KeyNames) -> None:
        self._names = names
        self._script = Script("emit_step", "event_router.messaging", ("versions", "times"))

    def command(self, entry: Prepared, job_id: str) -> tuple[list[str], list[Any]]:
        """Return the keys and arguments for an entry.

        Raises:
            InvalidEvent: it is no `progress` event, or its step lacks something.
        """
        event = entry.event
        if event.type != PROGRESS:
            raise InvalidEvent(
                f"only {PROGRESS!r} events are written directly; what {event.type!r} does is its handler's"
            )
        values, head, payload = opened(dict(zip(entry.fields[::2], entry.fields[1::2], strict=True)))
        step: JobStep = _STEP.convert(values, payload)
        unit = UnitOfWork()
        StateTransaction(event, self._names, unit, _NoReads()).job(job_id).step(
            stage=step.stage,
            status=step.status,
            seq=step.seq,
            progress=step.progress,
            message=step.message,
            result=step.result,
            terminal=ends_job(step.status),
        )
        (newest,) = unit.branches
        assert isinstance(newest, Newest)  # noqa: S101 - narrows the type
        (emission,) = newest.emissions
        sent = dict(zip(emission.fields[::2], emission.fields[1::2], strict=True))
        own_time = b"timestamp" in values or (head or {}).get("timestamp") is not None
        record = {name: value for name, value in newest.record.items() if name != "updated_at"}
        keys = [entry.stream, newest.key, emission.stream]
        if event.unique_id is not None:
            keys.append(f"{OWN_PREFIX}:emitted:{entry.stream}:{event.unique_id}")
        arguments: list[Any] = [
            newest.version.removesuffix(f"{event.id}@{event.stream}"),
            event.timestamp if own_time else "",
            newest.ttl_ms,
            self._names.outbox_maxlen,
            sent["channel"],
            sent["type"],
            sent["message"][len(_TIMESTAMP) :],
            MARK_TTL_MS,
            2 * len(record),
        ]
        arguments += (part for pair in record.items() for part in pair)
        return keys, [
            text_bytes(part) if isinstance(part, str) else part for part in arguments
        ] + entry.fields

    async def write(self, caller: Caller, keys: list[str], arguments: list[Any]) -> Any:
        """Write it, or nothing; return the entry's id as bytes. Raises what the caller raises."""
        return await self._script.run(caller, keys, arguments)


class _NoReads(StateReader):
    """A step reads nothing."""

    def touch(self, key: str) -> None:
        raise NotImplementedError

    async def read(self, key: str, field: str) -> str | None:
        raise NotImplementedError
