"""The transaction a handler works in: reads are checked and effects applied by the commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from event_router.core.effects import Effects, Newest, Once, StatusChange, UnitOfWork
from event_router.core.entity import Entity, Statistics
from event_router.core.entity import StateReader as StateReader
from event_router.core.errors import StateError
from event_router.core.event import AnyEvent
from event_router.core.human_input import HumanInputState
from event_router.core.keys import KeyNames
from event_router.core.presence import STATUSES, Status
from event_router.core.timestamps import shortened
from event_router.core.values import encode_value, ttl_in_ms

MARK_TTL_S = 40 * 24 * 3600
"""How long a once-only mark stands unless the handler says otherwise."""


class Branch:
    """Effects that depend on a condition the commit decides. Has no reads of its own."""

    __slots__ = ("_effects", "_state")

    def __init__(self, state: StateTransaction, effects: Effects) -> None:
        self._state = state
        self._effects = effects

    def entity(self, entity_type: str, entity_id: str) -> Entity:
        """Return an entity whose effects count only if the condition holds."""
        own = self._state.entity(entity_type, entity_id)
        return Entity(own.key, self._effects.hash(own.key), own._effects, self._state)

    def statistics(self, kind: str, name: object) -> Statistics:
        """Return counters that count only if the condition holds."""
        return self._state._statistics(self._effects, kind, name)

    def emit(self, stream: str, *, maxlen: int | None = None, **fields: object) -> None:
        """Append an entry to a stream if the condition holds."""
        self._effects.emit(stream, fields, maxlen)

    def publish(self, channel: str, message: Mapping[str, object]) -> None:
        """Publish a message if the condition holds; see `StateTransaction.publish`."""
        self._state._publish(self._effects, channel, message)


class JobState:
    """The state of one job: the greatest of (terminal, seq, entry id) wins and writes every field."""

    __slots__ = ("_job_id", "_state")

    def __init__(self, state: StateTransaction, job_id: str) -> None:
        self._state = state
        self._job_id = job_id

    def step(
        self,
        *,
        stage: str,
        status: str,
        seq: int = 0,
        progress: float | None = None,
        message: str | None = None,
        result: str | None = None,
        terminal: bool = False,
        ttl_s: float | None = None,
    ) -> None:
        """Record a step and publish it on the job's channel.

        A step older than the one committed changes nothing and is not published. A terminal step
        beats every other: finished is absorbing while the state lives.

        Raises:
            StateError: a negative `seq`, or a value that cannot be stored.
        """
        if seq < 0:
            raise StateError(f"job {self._job_id!r}: seq {seq} is negative")
        state = self._state
        event = state.event
        values: dict[str, object] = {
            "stage": stage,
            "status": status,
            "progress": progress,
            "seq": seq,
            "message": message,
            "result": result,
        }
        record = {name: "" if value is None else encode_value(value) for name, value in values.items()}
        record["updated_at"] = event.timestamp
        version = f"{int(terminal)}:{seq}:{event.id}@{event.stream}"
        key = state.names.job_state(event.domain, self._job_id)
        ttl_ms = state.names.job_state_ttl_ms if ttl_s is None else ttl_in_ms(ttl_s, key)
        step = Newest(key, version, record, ttl_ms)
        state._unit.branches.append(step)
        shown = {name: value for name, value in values.items() if value is not None}
        message_out = {"type": event.type, "domain": event.domain, "job_id": self._job_id, **shown}
        state._publish(step, state.names.job_channel(self._job_id), message_out)


class StateTransaction(msgspec.Struct, eq=False):
    """What a handler does to the state, recorded for one event and committed with it, or not at all."""

    event: AnyEvent
    names: KeyNames
    _unit: UnitOfWork
    _reader: StateReader

    def __repr__(self) -> str:
        return f"<StateTransaction of {self.event!r}>"

    @property
    def _version(self) -> str:
        """What `set_latest` compares: event time, then entry id, then the stream's name."""
        event = self.event
        return f"{event.time_ms}:{event.id}@{event.stream}"

    def entity(self, entity_type: str, entity_id: str) -> Entity:
        """Return the entity kept in the hash `state:{entity_type}:{entity_id}`."""
        return self._at(self.names.entity(entity_type, entity_id))

    def statistics(self, kind: str, name: object) -> Statistics:
        """Return the counters kept in `stats:{kind}:{name}`; a date names its day."""
        return self._statistics(self._unit, kind, name)

    def job(self, job_id: str) -> JobState:
        """Return the state of a job of this event's domain."""
        return JobState(self, job_id)

    def human_input(self, job_id: str) -> HumanInputState:
        """Return the questions that a job puts to its user."""
        return HumanInputState(
            job_id, event=self.event, names=self.names, at=self._at, publish=self.publish, emit=self.emit
        )

    def presence(self, user_id: str, status: Status, *, connection: str | None = None) -> None:
        """Note that a user is there, or not, as of the event's time; see `patterns.Presence`.

        It counts for `PRESENCE_TTL_S` from the event's time on. The latest change of each connection
        counts; `offline` without a connection ends all of the user's connections up to the event's time.
        A change of the user's status is announced on the channel `presence`.

        Raises:
            StateError: the status is none of `online`, `away`, `busy` and `offline`; user or connection
                are no text.
        """
        if status not in STATUSES:
            raise StateError(f"status {shortened(status)} is none of {', '.join(STATUSES)}")
        for name in (user_id, connection or ""):
            if not isinstance(name, str):
                raise StateError(f"presence of {shortened(name)}: it is {type(name).__name__}, not text")
        unit = self._unit
        its: str | Literal[False] = encode_value(connection) if connection else False
        change: StatusChange = (encode_value(user_id), its, status, str(self.event.time_ms))
        if unit.presence is None:
            unit.presence = [change]
        else:
            unit.presence.append(change)

    def once(self, mark: str, *, ttl_s: float = MARK_TTL_S) -> Branch:
        """Return a place for effects that count only the first time a mark is reached.

        The mark is set in the same step as the effects, and stands for `ttl_s` seconds.
        """
        branch = Once(self.names.mark(mark), ttl_in_ms(ttl_s, f"mark {mark!r}"))
        self._unit.branches.append(branch)
        return Branch(self, branch)

    def emit(self, stream: str, *, maxlen: int | None = None, **fields: object) -> None:
        """Append an entry to a stream with the commit; `maxlen` trims it approximately.

        Raises:
            StateError: no fields or above a thousand, a value without a text form, a negative `maxlen`.
        """
        self._unit.emit(stream, fields, maxlen)

    def publish(self, channel: str, message: Mapping[str, object]) -> None:
        """Publish a message to live clients, by way of the domain's fan-out log.

        Messages are JSON objects; `id` is added when they are published, `timestamp` is the event
        time unless the message has one.
        """
        self._publish(self._unit, channel, message)

    def _at(self, key: str) -> Entity:
        self._reader.touch(key)
        effects = self._unit.hash(key)
        return Entity(key, effects, effects, self)

    def _statistics(self, effects: Effects, kind: str, name: object) -> Statistics:
        key = self.names.statistics(kind, encode_value(name))
        return Statistics(key, effects.hash(key))

    def _publish(self, effects: Effects, channel: str, message: Mapping[str, object]) -> None:
        event = self.event
        body = {"timestamp": event.timestamp, **message}
        try:
            text = msgspec.json.encode(body).decode()
        except (TypeError, ValueError) as error:
            raise StateError(f"a message for channel {channel!r} is no JSON: {error}") from None
        effects.emit(
            self.names.outbox(event.domain),
            {"channel": channel, "type": event.type, "message": text},
            self.names.outbox_maxlen,
        )
