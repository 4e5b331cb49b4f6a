"""What one event does to one hash: what was read of it, and what becomes of its fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NoReturn

import msgspec

from event_router.core.errors import StateError
from event_router.core.timestamps import shortened
from event_router.core.values import check_names, encode_value

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
LATEST, MAXIMUM, INCREMENT = 1, 2, 3
"""What a change that is no plain text or number does."""

Change = str | int | Literal[False] | tuple[Any, ...]
"""What becomes of one field:

- text: it is set;
- a number: it is added, of at most 15 digits, which a double holds exactly;
- False: it is deleted;
- (LATEST, version, text): it is set unless a greater version is stored;
- (MAXIMUM, integer as text): it is raised to at least that;
- (INCREMENT, integer as text): it is added, of more than 15 digits.
"""

_EXACT = 10**15
NOTHING: dict[str, Any] = {}
"""Stands for no changes; never written to."""


class HashEffects(msgspec.Struct, eq=False, gc=False):
    """What one event read of a hash, and its effects on it. A field has one: those that fold are folded.

    Attributes:
        reads: field to what was read, False where it was absent; False where nothing was read.
        changes: field to what becomes of it.
        cleared: delete the whole hash before the rest is applied.
        ttl_ms: time to live from the commit on, in milliseconds.
        versioned: there was a `set_latest` among the changes.
    """

    key: str
    reads: dict[str, str | Literal[False]] | Literal[False]
    # Empty for most that are only read: what is in flight must fit the processor's cache (measured).
    changes: dict[str, Change]
    cleared: bool = False
    ttl_ms: int | None = None
    versioned: bool = False

    def __repr__(self) -> str:
        shown = (name for name in self.__struct_fields__[1:-1] if getattr(self, name))
        return f"<HashEffects {self.key} {' '.join(f'{name}={getattr(self, name)!r}' for name in shown)}>"

    def __bool__(self) -> bool:
        """Whether any effect is recorded."""
        return bool(self.changes or self.cleared or self.ttl_ms is not None)

    def note(self, field: str, value: str | None) -> str | None:
        """Note what was read, None where the field was absent, and return it; the first answer stands."""
        if self.reads is False:
            self.reads = {}
        stored = self.reads.setdefault(field, False if value is None else value)
        return None if stored is False else stored

    def increments(self) -> Iterator[tuple[str, int]]:
        """Yield fields and what is added to them."""
        for field, change in self.changes.items():
            amount = added(change)
            if amount is not None:
                yield field, amount

    def set(self, field: str, value: object) -> None:
        """Set a field; it replaces an earlier set, delete or increment of this unit."""
        text = value if type(value) is str and value.isascii() else encode_value(value)
        changes = self.changes
        if changes is NOTHING:
            self.changes = {field: text}
            return
        before = changes.get(field)
        if type(before) is tuple and before[0] != INCREMENT:
            self._refuse_mixture(field, "set")
        if self.versioned and field[-8:] == ":version":
            self._spare_version(field, "set")
        changes[field] = text

    def delete(self, field: str) -> None:
        """Delete a field, whatever this unit recorded for it before."""
        if type(field) is not str:
            check_names(field)
        if self.versioned and field[-8:] == ":version":
            self._spare_version(field, "delete")
        self._change(field, False)

    def increment(self, field: str, amount: int) -> None:
        """Add to a field. Raises StateError for what 64 bits cannot hold."""
        if type(field) is not str:
            check_names(field)
        exact = type(amount) is int and -_EXACT < amount < _EXACT
        if not exact:
            amount = _checked(self.key, field, amount)
        changes = self.changes
        before = changes.get(field)
        if before is None:
            if self.versioned and field[-8:] == ":version":
                self._spare_version(field, "increment")
            change = amount if exact else _addition(amount)
            if changes is NOTHING:
                self.changes = {field: change}
            else:
                changes[field] = change
        elif before is False:
            self._change(field, str(amount))
        elif type(before) is str:
            if not is_canonical(before):
                raise StateError(f"{self.key} {field}: cannot increment {shortened(before)}")
            self._change(field, str(_checked(self.key, field, int(before) + amount)))
        else:
            so_far = added(before)
            if so_far is None:
                self._refuse_mixture(field, "increment")
            self._change(field, _addition(_checked(self.key, field, so_far + amount)))

    def maximum(self, field: str, value: int) -> None:
        """Raise a field to at least this integer."""
        before = self.changes.get(field)
        known = type(before) is tuple and before[0] == MAXIMUM
        if before is not None and not known:
            self._refuse_mixture(field, "maximum")
        if self.versioned and field[-8:] == ":version":
            self._spare_version(field, "maximum")
        least = _checked(self.key, field, value)
        if type(before) is tuple:
            least = max(least, int(before[1]))
        self._change(field, (MAXIMUM, str(least)))

    def set_latest(self, field: str, value: object, version: str) -> None:
        """Set a field unless a later version of it is stored; the version stands in `{field}:version`."""
        text = value if type(value) is str and value.isascii() else encode_value(value)
        changes = self.changes
        if changes is NOTHING:
            self.changes = {field: (LATEST, version, text)}
        else:
            before = changes.get(field)
            if before is not None and not is_latest(before):
                self._refuse_mixture(field, "set_latest")
            if f"{field}:version" in changes:
                self._refuse_mixture(f"{field}:version", "set_latest")
            if self.versioned and field[-8:] == ":version":
                self._spare_version(field, "set_latest")
            changes[field] = (LATEST, version, text)
        self.versioned = True

    def clear(self) -> None:
        """Delete the whole hash, and forget what this unit recorded for it before."""
        self.changes = NOTHING
        self.ttl_ms = None
        self.cleared = True
        self.versioned = False

    def _change(self, field: str, change: Change) -> None:
        if self.changes is NOTHING:
            self.changes = {field: change}
        else:
            self.changes[field] = change

    def _spare_version(self, field: str, effect: str) -> None:
        """Refuse an effect on a field where the version of one set by `set_latest` stands."""
        if is_latest(self.changes.get(field[:-8])):
            self._refuse_mixture(field, effect)

    def _refuse_mixture(self, field: str, effect: str) -> NoReturn:
        raise StateError(f"{self.key} {field}: {effect} contradicts another effect on the field")


def added(change: Change) -> int | None:
    """Return what a change adds to its field; None for a change that is no increment."""
    if type(change) is int:
        return change
    if type(change) is tuple and change[0] == INCREMENT:
        return int(change[1])
    return None


def is_latest(change: Change | None) -> bool:
    """Whether a change is a `set_latest`."""
    return type(change) is tuple and change[0] == LATEST


def _addition(amount: int) -> Change:
    return amount if -_EXACT < amount < _EXACT else (INCREMENT, str(amount))


def is_canonical(text: str) -> bool:
    """Whether the text is an integer as Redis writes it: no sign but minus, no leading zeros."""
    digits = text[1:] if text[:1] == "-" else text
    return (
        digits.isascii()
        and digits.isdecimal()
        and (digits[0] != "0" or text == "0")
        and len(digits) <= 19
        and INT64_MIN <= int(text) <= INT64_MAX
    )


def _checked(key: str, field: str, number: object) -> int:
    if type(number) is not int:
        if not isinstance(number, int) or isinstance(number, bool):
            raise StateError(f"{key} {field}: {shortened(number)} is no integer")
        number = int(number)  # an enum's own text says its name
    if not INT64_MIN <= number <= INT64_MAX:
        raise StateError(f"{key} {field}: {number} does not fit 64 bits")
    return number
