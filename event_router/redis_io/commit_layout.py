"""How what an event read of hashes, and its effects on them, are laid out for the commit script.

The values stand one behind the other, so that the script need not build tables to read them, and the
arguments of HMGET and HSET side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal

from event_router.core.effects import Newest, Once
from event_router.core.hash_effects import INCREMENT, LATEST, MAXIMUM, NOTHING, Change, HashEffects

ONCE, NEWEST = 1, 2


def add_effects(values: list[Any], effects: HashEffects, alone: bool) -> None:
    """Append what one event read of a hash, and its effects on it.

    Args:
        alone: the unit has no branches, which might count in the same fields.
    """
    key = effects.key
    reads: dict[str, Any] = effects.reads or NOTHING
    changes: dict[str, Any] = effects.changes
    more: Any = False
    raised: list[Any] = []
    if effects.cleared or effects.ttl_ms is not None:
        more = (0, effects.cleared, _or_false(effects.ttl_ms), False)
        if effects.cleared:
            changes = _of_cleared(changes)
    elif len(changes) == 1 and not reads:
        for field, change in changes.items():
            if type(change) is int:
                values += (5, False, key, field, change)
                return
    counted: list[Any] = []
    plain: list[Any] = []
    versions: list[Any] = []
    latest: list[Any] = []
    rare: list[str] = []
    for field, change in changes.items():
        kind = type(change)
        if kind is str:
            plain.append(field)
            plain.append(change)
        elif kind is int:
            counted.append(field)
            counted.append(change)
        elif kind is tuple and change[0] == LATEST:
            version_field = f"{field}:version"
            versions.append(version_field)
            latest.append(version_field)
            latest.append(change[1])
            latest.append(field)
            latest.append(change[2])
        else:
            rare.append(field)
    if rare:
        counted += _pairs(changes, rare, INCREMENT)
        raised = _pairs(changes, rare, MAXIMUM)
        deleted = [field for field in rare if changes[field] is False]
        more = (len(raised) // 2, effects.cleared, _or_false(effects.ttl_ms), deleted or False)
    if reads or plain or latest or more:
        # Increments beside other writes are a part of them, others are merged over the batch.
        beside = counted if alone and (reads or plain or latest) else []
        size = 6 + 2 * len(reads) + 5 * len(versions) + 3 * (len(beside) + len(raised)) // 2 + len(plain)
        values += (size, len(reads), len(versions), len(beside) // 2, more)
        values += reads.values()
        values.append(key)
        values += reads
        values += versions
        if raised:
            values += raised[::2]
        if beside:
            values += beside[::2]
            values += beside
        if plain:
            values += plain
        if raised:
            values += raised
        values += latest
        if beside:
            return
    if counted:
        values += (3 + len(counted), False, key)
        values += counted


def _pairs(changes: dict[str, Any], fields: Iterable[str], kind: int) -> list[Any]:
    """Return fields and what becomes of them, in turn, of changes of one kind."""
    those = [field for field in fields if changes[field] and changes[field][0] == kind]
    return [part for field in those for part in (field, changes[field][1])]


def _or_false(number: int | None) -> int | Literal[False]:
    return False if number is None else number


def _of_cleared(changes: dict[str, Change]) -> dict[str, Change]:
    """Return what is set of a hash that is cleared first: it has no stored values that count."""
    texts: dict[str, Change] = {}
    for field, change in changes.items():
        if type(change) is tuple:
            if change[0] == LATEST:
                texts[f"{field}:version"] = change[1]
            texts[field] = change[-1]
        elif change is not False:
            texts[field] = str(change)
    return texts


def as_branch(branch: Once | Newest) -> tuple[Any, ...]:
    """Return effects behind a condition."""
    hashes: list[Any] = []
    for effects in branch.hashes.values():
        add_effects(hashes, effects, alone=False)
    branches = [*map(as_branch, branch.branches)]
    its = (str(branch.ttl_ms), hashes, branch.emissions or False, branches or False)
    if isinstance(branch, Once):
        return (ONCE, branch.mark, *its)
    record = [branch.key, "version", branch.version, *chain.from_iterable(branch.record.items())]
    return (NEWEST, record, *its)
