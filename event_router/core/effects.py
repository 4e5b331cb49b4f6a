"""What a handler read and the changes it recorded: the unit of work of one event.

Values are text. Bytes that are not UTF-8 travel as surrogate escapes (PEP 383) and come out again
byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from event_router.core.errors import StateError
from event_router.core.hash_effects import INT64_MAX, NOTHING, HashEffects, is_latest
from event_router.core.timestamps import shortened
from event_router.core.values import check_names, encode_value

MAX_EMISSION_FIELDS = 1_000


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
            found = self.hashes[key] = HashEffects(key, False, NOTHING)
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

    __slots__ = ("presence",)

    def __init__(self) -> None:
        self.hashes = {}
        self.emissions = []
        self.branches = []
        self.presence: list[StatusChange] | None = None

    def refuse_contradictions(self) -> None:
        """Refuse effects behind a condition that meet others of the unit on one field.

        They are applied after the others, so that the outcome would hang on the condition; only
        increments add up.

        Raises:
            StateError: names the key.
        """
        seen: dict[str, list[HashEffects]] = {}
        records: dict[str, list[Newest]] = {}
        groups: list[Effects] = [self]
        while groups:
            group = groups.pop()
            for key, effects in group.hashes.items():
                if effects:
                    seen.setdefault(key, []).append(effects)
            if isinstance(group, Newest):
                records.setdefault(group.key, []).append(group)
            groups += group.branches
        for key, several in seen.items():
            _refuse_overlap(key, several)
            for record in records.get(key, ()):  # records overwrite one another: the newest wins
                _refuse_overlap(key, [*several, record])


def _refuse_overlap(key: str, several: Sequence[HashEffects | Newest]) -> None:
    if len(several) < 2:
        return
    written: set[str] = set()
    incremented: set[str] = set()
    for effects in several:
        if isinstance(effects, Newest):
            own = {"version", *effects.record}
        else:
            added_to = {field for field, _ in effects.increments()}
            own = effects.changes.keys() - added_to
            own |= {f"{field}:version" for field in own if is_latest(effects.changes[field])}
            incremented |= added_to
        if (not isinstance(effects, Newest) and effects.cleared) or written & own:
            raise StateError(f"{key}: an effect behind a condition contradicts another one of the unit")
        written |= own
    if written & incremented:
        raise StateError(f"{key}: an increment contradicts another effect of the unit")


def _length(stream: str, maxlen: object) -> str:
    if not isinstance(maxlen, int) or isinstance(maxlen, bool) or not 0 <= maxlen <= INT64_MAX:
        raise StateError(f"an entry for {stream!r}: {shortened(maxlen)} is no length of a stream")
    return str(int(maxlen))
