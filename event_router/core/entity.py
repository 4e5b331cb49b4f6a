"""Entities and statistics: the hashes a handler works on, effect by effect."""

from __future__ import annotations

from typing import Any, Protocol, overload

from event_router.core.effects import HashEffects, UnitOfWork, is_canonical
from event_router.core.errors import InvalidState
from event_router.core.values import ttl_in_ms


class StateReader(Protocol):
    """Reads for one unit of work, in the order of the events that touch an entity."""

    def touch(self, key: str) -> None:
        """Note that the unit works on a key: later events' reads of it wait for this unit."""

    def known(self, key: str, field: str) -> tuple[str | None] | None:
        """Return, in a tuple, a field that can be told without waiting; None where it cannot."""
        return None

    async def read(self, key: str, field: str) -> str | None:
        """Return a field as earlier events leave it. Raises InvalidState for a key that is no hash."""


class Entity:
    """One entity's hash. Reads are awaited; effects are recorded and applied at commit."""

    __slots__ = ("_effects", "_reader", "_unit", "_version", "key")

    def __init__(
        self, key: str, effects: HashEffects, unit: UnitOfWork, reader: StateReader, version: str
    ) -> None:
        self.key = key
        self._effects = effects
        self._unit = unit
        self._reader = reader
        self._version = version

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
        if not fields:
            # The common case without a coroutine more: nothing recorded yet, and the value is known.
            if not self._effects and (known := self._reader.known(self.key, field)) is not None:
                return self._unit.reads.setdefault((self.key, field), known[0])
            return await self._get(field)
        return tuple([await self._get(name) for name in (field, *fields)])

    async def _get(self, field: str) -> str | None:
        effects = self._effects
        if effects.sets and field in effects.sets:
            return effects.sets[field]
        if field in effects.deletes:
            return None
        value = None if effects.cleared else await self._stored(field)
        if field in effects.increments:
            return str(self._integer(field, value) + effects.increments[field])
        if field in effects.maxima:
            least = effects.maxima[field]
            return str(least if value is None else max(self._integer(field, value), least))
        return value

    async def _stored(self, field: str) -> str | None:
        reads = self._unit.reads
        place = (self.key, field)
        if place not in reads:
            reads[place] = await self._reader.read(self.key, field)
        return reads[place]

    def _integer(self, field: str, value: str | None) -> int:
        if value is not None and not is_canonical(value):
            raise InvalidState(f"field {field!r} of key {self.key!r} holds no 64-bit integer")
        return int(value or 0)

    def set(self, **values: object) -> None:
        """Set fields. Values: text, bytes, numbers, booleans, datetimes and dates."""
        for field, value in values.items():
            self._effects.set(field, value)

    def set_latest(self, **values: object) -> None:
        """Set fields unless an event with a later time has: the order of arrival does not matter.

        Equal times: the higher entry id wins, then the stream's name.
        """
        for field, value in values.items():
            self._effects.set_latest(field, value, self._version)

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


class Statistics:
    """Counters that are only written: never read, so that events on them need no order."""

    __slots__ = ("_effects", "key")

    def __init__(self, key: str, effects: HashEffects) -> None:
        self.key = key
        self._effects = effects

    def increment(self, field: str, amount: int = 1) -> None:
        """Add to a counter (64-bit)."""
        self._effects.increment(field, amount)
