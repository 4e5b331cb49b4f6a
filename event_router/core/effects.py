"""What a handler read and the changes it recorded: the unit of work of one event.

Values are text. Bytes that are not UTF-8 travel as surrogate escapes (PEP 383) and come out again
byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn

import msgspec

from event_router.core.errors import StateError
from event_router.core.timestamps import shortened
from event_router.core.values import check_names, encode_value

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_EMISSION_FIELDS = 1_000

Reads = dict[str, dict[str, str | Literal[False]]]
"""Key to field to what was read: text, or False where the field was absent."""

_NOTHING: dict[str, Any] = {}
"""Stands for every kind of effect that is not recorded; never written to."""


class HashEffects(msgspec.Struct, array_like=True, eq=False, gc=False):
    """The effects on one hash. A field has at most one kind of effect; kinds that fold are folded.

    It is sent to the commit script as it is: the order of the attributes is that of the script, and
    integers are decimal text.

    Attributes:
        sets: field to value.
        latest: field to (version, value); the greatest version wins.
        increments: field to amount.
        maxima: field to the integer it shall at least have.
        deletes: fields to delete.
        cleared: delete the whole hash before the rest is applied.
        ttl_ms: time to live from the commit on, in milliseconds.
    """

    key: str
    # Most stay empty: what is in flight must fit the processor's cache (a quarter of the time, measured).
    sets: dict[str, str]
    latest: dict[str, tuple[str, str]]
    increments: dict[str, str]
    maxima: dict[str, str]
    deletes: dict[str, bool]
    cleared: bool = False
    ttl_ms: int | None = None

    def __repr__(self) -> str:
        parts = [
            f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__[1:] if getattr(self, name)
        ]
        return f"<HashEffects {self.key} {' '.join(parts)}>"

    def __bool__(self) -> bool:
        """Whether any effect is recorded."""
        written = self.sets or self.deletes or self.increments or self.maxima or self.latest
        return bool(written or self.cleared or self.ttl_ms is not None)

    def set(self, field: str, value: object) -> None:
        """Set a field; it replaces an earlier set, delete or increment of this unit."""
        if field in self.latest or field in self.maxima or (self.latest and self._is_version(field)):
            self._refuse_mixture(field, "set")
        if field in self.increments:
            del self.increments[field]
        if field in self.deletes:
            del self.deletes[field]
        text = value if type(value) is str and value.isascii() else encode_value(value)
        if self.sets is _NOTHING:
            self.sets = {field: text}
        else:
            self.sets[field] = text

    def delete(self, field: str) -> None:
        """Delete a field, whatever this unit recorded for it before."""
        if type(field) is not str:
            check_names(field)
        if self.latest and self._is_version(field):
            self._refuse_mixture(field, "delete")
        for recorded in (self.sets, self.increments, self.maxima, self.latest):
            if field in recorded:
                del recorded[field]
        if self.deletes is _NOTHING:
            self.deletes = {}
        self.deletes[field] = True

    def increment(self, field: str, amount: int) -> None:
        """Add to a field. Raises StateError for what 64 bits cannot hold."""
        if type(field) is not str:
            check_names(field)
        if field in self.latest or field in self.maxima or (self.latest and self._is_version(field)):
            self._refuse_mixture(field, "increment")
        if field in self.deletes:
            self.set(field, "0")
        if field in self.sets:
            text = self.sets[field]
            if not is_canonical(text):
                raise StateError(f"{self.key} {field}: cannot increment {shortened(text)}")
            self.sets[field] = str(_checked(self.key, field, int(text) + _checked(self.key, field, amount)))
        elif self.increments is _NOTHING:
            self.increments = {field: str(_checked(self.key, field, amount))}
        else:
            sum_ = int(self.increments.get(field, "0")) + _checked(self.key, field, amount)
            self.increments[field] = str(_checked(self.key, field, sum_))

    def maximum(self, field: str, value: int) -> None:
        """Raise a field to at least this integer."""
        if field in self.sets or field in self.deletes or field in self.increments or field in self.latest:
            self._refuse_mixture(field, "maximum")
        if self.latest and self._is_version(field):
            self._refuse_mixture(field, "maximum")
        least = _checked(self.key, field, value)
        if self.maxima is _NOTHING:
            self.maxima = {}
        self.maxima[field] = str(max(least, int(self.maxima.get(field, least))))

    def set_latest(self, field: str, value: object, version: str) -> None:
        """Set a field unless a later version of it is stored; the version stands in `{field}:version`."""
        if field in self.sets or field in self.deletes or field in self.increments or field in self.maxima:
            self._refuse_mixture(field, "set_latest")
        kept_in = f"{field}:version"
        if kept_in in self.sets or kept_in in self.increments or kept_in in self.latest:
            self._refuse_mixture(kept_in, "set_latest")
        if kept_in in self.deletes or kept_in in self.maxima or (self.latest and self._is_version(field)):
            self._refuse_mixture(kept_in, "set_latest")
        text = value if type(value) is str and value.isascii() else encode_value(value)
        if self.latest is _NOTHING:
            self.latest = {field: (version, text)}
        else:
            self.latest[field] = (version, text)

    def clear(self) -> None:
        """Delete the whole hash, and forget what this unit recorded for it before."""
        self.sets = self.deletes = self.increments = self.maxima = self.latest = _NOTHING
        self.ttl_ms = None
        self.cleared = True

    def _is_version(self, field: str) -> bool:
        """Whether the field is where the version of one set by `set_latest` stands."""
        return field.endswith(":version") and field[: -len(":version")] in self.latest

    def _refuse_mixture(self, field: str, effect: str) -> NoReturn:
        raise StateError(f"{self.key} {field}: {effect} contradicts another effect on the field")


class Emission(msgspec.Struct, array_like=True, eq=False):
    """An XADD that the commit makes: to a stream, or to the fan-out log.

    Attributes:
        maxlen: about how many entries the stream keeps, as decimal text; False for all.
        fields: names and values in turn.
    """

    stream: str
    maxlen: str | Literal[False]
    fields: list[str]


class Effects:
    """Effects that are applied together: those of the event, or those behind a condition."""

    __slots__ = ("branches", "emissions", "hashes")

    def __init__(self) -> None:
        self.hashes: dict[str, HashEffects] = {}
        self.emissions: list[Emission] = []
        self.branches: list[Once | Newest] = []

    def hash(self, key: str) -> HashEffects:
        """Return the effects on one hash, to be added to."""
        found = self.hashes.get(key)
        if found is None:
            found = self.hashes[key] = HashEffects(key, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING)
        return found

    def emit(self, stream: str, fields: Mapping[str, object], maxlen: int | None) -> None:
        """Record an XADD.

        Raises:
            StateError: no fields, more than a script can pass on, or a `maxlen` that is no length.
        """
        check_names(stream)
        if not 0 < len(fields) <= MAX_EMISSION_FIELDS:
            raise StateError(
                f"an entry for {stream!r} has {len(fields)} fields; 1 to {MAX_EMISSION_FIELDS} are possible"
            )
        flat: list[str] = []
        for name, value in fields.items():
            flat += (name, encode_value(value))
        self.emissions.append(Emission(stream, False if maxlen is None else _length(stream, maxlen), flat))

    def __bool__(self) -> bool:
        return bool(self.hashes or self.emissions or self.branches)


class Once(Effects):
    """Effects applied only where the mark does not stand yet; the same step sets it."""

    __slots__ = ("mark", "ttl_ms")

    def __init__(self, mark: str, ttl_ms: int) -> None:
        super().__init__()
        self.mark = mark
        self.ttl_ms = ttl_ms


class Newest(Effects):
    """A record written whole, with the effects that go with it, unless a newer version is stored.

    Attributes:
        key: the record's hash.
        version: compared part by part, numbers as numbers; stored in the record's `version` field.
        record: every field of the record.
        ttl_ms: time to live of the record, renewed by each write.
    """

    __slots__ = ("key", "record", "ttl_ms", "version")

    def __init__(self, key: str, version: str, record: dict[str, str], ttl_ms: int) -> None:
        super().__init__()
        self.key = key
        self.version = version
        self.record = record
        self.ttl_ms = ttl_ms


StatusChange = tuple[str, str | Literal[False], str, str]
"""User, connection or False, status, and since when (epoch milliseconds as decimal text)."""


class UnitOfWork(Effects):
    """What one event's handler read, and the effects it recorded."""

    __slots__ = ("presence", "reads")

    def __init__(self) -> None:
        self.hashes = {}
        self.emissions = []
        self.branches = []
        self.reads: Reads = {}
        self.presence: list[StatusChange] | None = None

    def read(self, key: str, field: str, value: str | None) -> None:
        """Note what the handler read, None where the field was absent; the first answer stands."""
        self.reads.setdefault(key, {}).setdefault(field, False if value is None else value)

    def refuse_contradictions(self) -> None:
        """Refuse effects behind a condition that meet others of the unit on one field.

        They are applied after the others, so that the outcome would hang on the condition; only
        increments add up.

        Raises:
            StateError: names the key.
        """
        seen: dict[str, list[HashEffects | Newest]] = {}
        records: dict[str, Newest] = {}
        groups: list[Effects] = [self]
        while groups:
            group = groups.pop()
            for key, effects in group.hashes.items():
                seen.setdefault(key, []).append(effects)
            if isinstance(group, Newest):
                records[group.key] = group
            groups += group.branches
        for key, record in records.items():
            if key in seen:
                seen[key].append(record)
        for key, several in seen.items():
            if len(several) > 1:
                _refuse_overlap(key, several)


def _refuse_overlap(key: str, several: Iterable[HashEffects | Newest]) -> None:
    written: set[str] = set()
    incremented: set[str] = set()
    for effects in several:
        if isinstance(effects, Newest):
            own = {"version", *effects.record}
        else:
            own = {*effects.sets, *effects.deletes, *effects.maxima, *effects.latest}
            own |= {f"{field}:version" for field in effects.latest}
            incremented |= effects.increments.keys()
        if (not isinstance(effects, Newest) and effects.cleared) or written & own:
            raise StateError(f"{key}: an effect behind a condition contradicts another one of the unit")
        written |= own
    if written & incremented:
        raise StateError(f"{key}: an increment contradicts another effect of the unit")


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


def _length(stream: str, maxlen: object) -> str:
    if not isinstance(maxlen, int) or isinstance(maxlen, bool) or not 0 <= maxlen <= INT64_MAX:
        raise StateError(f"an entry for {stream!r}: {shortened(maxlen)} is no length of a stream")
    return str(int(maxlen))


def _checked(key: str, field: str, number: object) -> int:
    if type(number) is not int:
        if not isinstance(number, int) or isinstance(number, bool):
            raise StateError(f"{key} {field}: {shortened(number)} is no integer")
        number = int(number)  # an enum's own text says its name
    if not INT64_MIN <= number <= INT64_MAX:
        raise StateError(f"{key} {field}: {number} does not fit 64 bits")
    return number
