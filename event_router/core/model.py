"""The commit in memory: a model of what `redis_io/scripts/commit.lua` does to a keyspace.

It serves `event_router.testing`, and the property tests hold the script against it. It knows neither
permissions nor the clock: a time to live is noted and nothing expires; streams are not trimmed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from event_router.core.effects import Effects, Newest, Once, StatusChange, UnitOfWork
from event_router.core.errors import NoGroup
from event_router.core.hash_effects import INT64_MAX, INT64_MIN, LATEST, MAXIMUM, HashEffects, is_canonical
from event_router.core.keys import dead_letter_stream, dedupe_key
from event_router.core.outcome import Answer, DeadLetter, Settlement, Verdict
from event_router.core.values import text_bytes
from event_router.core.versions import newer

_SHOWN_BYTES = 40


@dataclass
class StateModel:
    """A keyspace with one consumer group. Text holds bytes that are not UTF-8 as surrogate escapes.

    Attributes:
        hashes: key to field to value.
        streams: key to the entries in it, each as names and values in turn.
        others: key to the Redis type, of keys that are neither.
        ttl_ms: key to the time to live it was given last.
        presence: changes of presence in the order of their commits.
        pending: stream to the ids delivered to the group and not settled; a stream that is missing here
            has no group.
    """

    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    streams: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    ttl_ms: dict[str, int] = field(default_factory=dict)
    presence: list[StatusChange] = field(default_factory=list)
    pending: dict[str, set[str]] = field(default_factory=dict)
    dedupe_ttl_ms: int = 3_600_000

    def type_of(self, key: str) -> str:
        """Return the key's Redis type, `none` where it does not exist."""
        if key in self.hashes:
            return "hash"
        return "stream" if key in self.streams else self.others.get(key, "none")

    def deliver(self, stream: str, entry_id: str) -> None:
        """Note that the group was given an entry."""
        self.pending.setdefault(stream, set()).add(entry_id)

    def commit_batch(self, settlements: Iterable[Settlement]) -> list[Answer]:
        """Commit each settlement. Raises NoGroup, before the first, for a stream that has no group."""
        batch = list(settlements)
        for settlement in batch:
            if settlement.stream not in self.pending:
                raise NoGroup(settlement.stream)
        return [self.commit(settlement) for settlement in batch]

    def commit(self, settlement: Settlement) -> Answer:
        """Validate, acknowledge and apply one settlement, or leave everything as it is."""
        pending = self.pending[settlement.stream]
        work = settlement.work
        mark = settlement.unique_id and dedupe_key(settlement.stream, settlement.unique_id)
        if mark and self.type_of(mark) != "none":
            pending.discard(settlement.id)
            return Answer(Verdict.SETTLED)
        validation = _Validation(self)
        try:
            if isinstance(work, DeadLetter):
                if settlement.decided_on is not None:
                    validation.reads(settlement.decided_on)
                validation.key(dead_letter_stream(settlement.stream), "stream")
            else:
                validation.reads(work)
                validation.effects(work)
        except _Refused as refused:
            return refused.answer if settlement.id in pending else Answer(Verdict.SETTLED)
        if settlement.id not in pending:
            return Answer(Verdict.SETTLED)
        pending.remove(settlement.id)
        if isinstance(work, DeadLetter):
            letter = work.entry(settlement.stream, settlement.id)
            self._append(
                dead_letter_stream(settlement.stream),
                [part.decode("utf-8", "surrogateescape") for part in letter],
            )
        else:
            self._apply(validation.counting)
            self.presence += work.presence or ()
            if mark:
                self.others[mark] = "string"
                self.ttl_ms[mark] = self.dedupe_ttl_ms
        return Answer(Verdict.COMMITTED)

    def _apply(self, groups: list[Effects]) -> None:
        for group in groups:  # the script adds up increments before anything else is written
            for effects in group.hashes.values():
                if not effects.cleared:
                    self._increment(effects)
        for group in groups:
            if isinstance(group, Newest):
                self._hash(group.key).update({"version": group.version, **group.record})
                self.ttl_ms[group.key] = group.ttl_ms
            elif isinstance(group, Once) and self.type_of(group.mark) == "none":
                self.others[group.mark] = "string"
                self.ttl_ms[group.mark] = group.ttl_ms
            for effects in group.hashes.values():
                self._write(effects)
            for emission in group.emissions:
                self._append(emission.stream, emission.fields)

    def _increment(self, effects: HashEffects) -> None:
        for name, amount in effects.increments():
            values = self._hash(effects.key)
            values[name] = str(int(values.get(name, "0")) + amount)

    def _write(self, effects: HashEffects) -> None:
        key = effects.key
        if effects.cleared:
            self._remove(key)
            self._increment(effects)
        for name, change in effects.changes.items():
            match change:
                case str():
                    self._hash(key)[name] = change
                case (kind, version, value) if kind == LATEST:
                    stored = self.stored(key, f"{name}:version")
                    if stored is None or newer(version, stored):
                        self._hash(key).update({name: value, f"{name}:version": version})
                case (kind, least) if kind == MAXIMUM:
                    stored = self.stored(key, name)
                    if stored is None or not is_canonical(stored) or int(stored) < int(least):
                        self._hash(key)[name] = least
                case False if not effects.cleared and key in self.hashes:
                    self.hashes[key].pop(name, None)
        if not self.hashes.get(key, True):
            self._remove(key)
        if effects.ttl_ms is not None and key in self.hashes:
            self.ttl_ms[key] = effects.ttl_ms

    def _append(self, stream: str, fields: Iterable[str]) -> None:
        self.streams.setdefault(stream, []).append(tuple(fields))

    def stored(self, key: str, name: str) -> str | None:
        """Return a field's value, None where it is absent."""
        return self.hashes.get(key, {}).get(name)

    def _hash(self, key: str) -> dict[str, str]:
        return self.hashes.setdefault(key, {})

    def _remove(self, key: str) -> None:
        self.hashes.pop(key, None)
        self.ttl_ms.pop(key, None)


class _Refused(Exception):
    def __init__(self, verdict: Verdict, reason: str = "") -> None:
        self.answer = Answer(verdict, reason)


class _Validation:
    """Decides on one unit: what is wrong with it, or which of its conditions hold.

    Attributes:
        counting: the unit and the branches whose condition holds, in the order they are applied.
    """

    def __init__(self, model: StateModel) -> None:
        self.counting: list[Effects] = []
        self._model = model
        self._claimed: dict[str, str] = {}
        self._sums: dict[tuple[str, str], int] = {}
        self._marks: set[str] = set()
        self._versions: dict[str, str] = {}

    def key(self, key: str, use: str) -> None:
        """Refuse a key of another type than the unit makes use of."""
        kind = self._model.type_of(key)
        if kind == "none":
            kind = self._claimed.setdefault(key, use)
        if kind != use:
            raise _Refused(Verdict.INVALID, f"key '{_decoded(key)}' is a {kind}, not a {use}")

    def reads(self, unit: UnitOfWork) -> None:
        """Refuse a unit whose reads are out of date."""
        for key, effects in unit.hashes.items():
            if not effects.reads:
                continue
            try:
                self.key(key, "hash")
            except _Refused:
                raise _Refused(Verdict.CONFLICT) from None
            for name, value in effects.reads.items():
                if self._model.stored(key, name) != (None if value is False else value):
                    raise _Refused(Verdict.CONFLICT)

    def effects(self, group: Effects) -> None:
        """Refuse effects that cannot be applied; decide the conditions of branches."""
        self.counting.append(group)
        for effects in group.hashes.values():
            if effects:
                self._hash(effects)
        for emission in group.emissions:
            self.key(emission.stream, "stream")
        for branch in group.branches:
            if self._holds(branch):
                self.effects(branch)

    def _hash(self, effects: HashEffects) -> None:
        key = effects.key
        self.key(key, "hash")
        if effects.cleared:
            return
        for name, change in effects.changes.items():
            if isinstance(change, tuple) and change[0] == MAXIMUM:
                self._integer(key, name)
        for name, amount in effects.increments():
            sum_ = self._sums.get((key, name), 0) + amount
            if not INT64_MIN <= self._integer(key, name) + sum_ <= INT64_MAX:
                raise _Refused(
                    Verdict.INVALID, f"field {_shown(name)} of key '{_decoded(key)}' would overflow 64 bits"
                )
            self._sums[key, name] = sum_

    def _integer(self, key: str, name: str) -> int:
        stored = self._model.stored(key, name)
        if stored is None:
            return 0
        if not is_canonical(stored):
            raise _Refused(
                Verdict.INVALID,
                f"field {_shown(name)} of key '{_decoded(key)}' holds {_shown(stored)}, not a 64-bit integer",
            )
        return int(stored)

    def _holds(self, branch: Once | Newest) -> bool:
        if isinstance(branch, Once):
            new = branch.mark not in self._marks and self._model.type_of(branch.mark) == "none"
            self._marks.add(branch.mark)
            return new
        key = branch.key
        self.key(key, "hash")
        stored = self._versions.get(key, self._model.stored(key, "version"))
        new = stored is None or newer(branch.version, stored)
        if new:
            self._versions[key] = branch.version
        return new


def _decoded(text: str) -> str:
    return text_bytes(text).decode("utf-8", "backslashreplace")


def _shown(text: str) -> str:
    raw = text_bytes(text)
    if len(raw) > _SHOWN_BYTES:
        raw = raw[:_SHOWN_BYTES] + b"..."
    return f"'{raw.decode('utf-8', 'backslashreplace')}'"
