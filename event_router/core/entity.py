"""Entities and statistics: the hashes a handler works on, effect by effect."""

from __future__ import annotations

from typing import Any, Protocol, overload

import msgspec

from event_router.core.errors import InvalidState
from event_router.core.hash_effects import MAXIMUM, HashEffects, added, is_canonical
from event_router.core.values import ttl_in_ms

UNKNOWN = object()
"""A value that only waiting can tell."""


class StateReader(Protocol):
    """Reads for one unit of work, in the order of the events that touch an entity."""

    def touch(self, key: str) -> None:
        """Note that the unit works on a key: later events' reads of it wait for this unit."""

    def known(self, key: str, field: str) -> Any:
        """Return a field (text or None) that can be told without waiting; `UNKNOWN` where it cannot."""
        return UNKNOWN

    async def read(self, key: str, field: str) -> str | None:
        """Return a field as earlier events leave it. Raises InvalidState for a key that is no hash."""


class Context(Protocol):
    """The transaction an entity belongs to."""

    _reader: StateReader

    @property
    def _version(self) -> str:
        """What decides which of two `set_latest` is the later one."""


class Entity(msgspec.Struct, eq=False):
    """One entity's hash. Reads are awaited; effects are recorded and applied at commit."""

    key: str
    _effects: HashEffects
    _read: HashEffects
    """Where reads are noted: with the unit's own effects, also for an entity behind a condition."""
    _context: Context

    def __repr__(self) -> str:
        return f"<Entity {self.key}>"

    @overload
    async def get(self, field: str, /) -> str | None: ...
    @overload
    async def get(self, field: str, /, *fields: str) -> tuple[str | None, ...]: ...

    async def get(self, field: str, /, *fields: str) -> Any:
        """Return a field's text, None where it is absent; for several fields a tuple.

        Sees what this unit set, deleted, incremented or raised before, but not its `set_latest`: which
        event is the latest only the commit knows. What was read is checked at commit: if somebody changed
        it meanwhile, the handler runs again.

        Raises:
            InvalidState: the key is of another Redis type, or the unit incremented or raised the field and
                it holds no integer; let it pass, the event is dead-lettered.
        """
        if fields:
            return tuple([await self._get(name) for name in (field, *fields)])
        # The common case without a coroutine more: nothing read or recorded yet, and the value is known.
        effects = self._effects
        if effects is self._read and not (effects.reads or effects.changes or effects.cleared):
            known = self._context._reader.known(self.key, field)
            if known is not UNKNOWN:
                effects.reads = {field: False if known is None else known}
                return known
        return await self._get(field)

    async def _get(self, field: str) -> str | None:
        effects = self._effects
        change = effects.changes.get(field)
        if type(change) is str:
            return change
        if change is False:
            return None
        value = None if effects.cleared else await self._stored(field)
        if change is None:
            return value
        amount = added(change)
        if amount is not None:
            return str(self._integer(field, value) + amount)
        if type(change) is tuple and change[0] == MAXIMUM:
            least = int(change[1])
            return str(least if value is None else max(self._integer(field, value), least))
        return value

    async def _stored(self, field: str) -> str | None:
        reads = self._read.reads
        if reads and field in reads:
            stored = reads[field]
            return None if stored is False else stored
        return self._read.note(field, await self._context._reader.read(self.key, field))

    def _integer(self, field: str, value: str | None) -> int:
        if value is not None and not is_canonical(value):
            raise InvalidState(f"field {field!r} of key {self.key!r} holds no 64-bit integer")
        return int(value or 0)

    def set(self, **values: object) -> None:
        """Set fields. Values: text, bytes, numbers, booleans, datetimes and dates."""
        effects = self._effects
        for field, value in values.items():
            effects.set(field, value)

    def set_latest(self, **values: object) -> None:
        """Set fields unless an event with a later time has: the order of arrival does not matter.

        Equal times: the higher entry id wins, then the stream's name.
        """
        effects, version = self._effects, self._context._version
        for field, value in values.items():
            effects.set_latest(field, value, version)

    def increment(self, field: str, amount: int = 1) -> None:
        """Add to an integer field (64-bit). Overflow at commit makes the event a dead letter."""
        self._effects.increment(field, amount)

    def maximum(self, **values: int) -> None:
        """Raise integer fields to at least these values."""
        for field, value in values.items():
            self._effects.maximum(field, value)

    def delete(self, *fields: str) -> None:
        """Delete these fields, or the whole entity when none is named."""
        if not fields:
            self._effects.clear()
        for field in fields:
            self._effects.delete(field)

    def expire(self, seconds: float) -> None:
        """Let the entity expire this long after the commit."""
        self._effects.ttl_ms = ttl_in_ms(seconds, self.key)


class Statistics(msgspec.Struct, eq=False):
    """Counters that are only written: never read, so that events on them need no order."""

    key: str
    _effects: HashEffects

    def __repr__(self) -> str:
        return f"<Statistics {self.key}>"

    def increment(self, field: str, amount: int = 1) -> None:
        """Add to a counter (64-bit)."""
        self._effects.increment(field, amount)
