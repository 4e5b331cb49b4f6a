"""What this process knows of hashes that deliveries in flight work on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from event_router.core.effects import Effects, Newest, UnitOfWork
from event_router.core.hash_effects import added, is_canonical

if TYPE_CHECKING:
    from event_router.runtime.turns import Turn

MOST_KEPT = 64
MOST_KEPT_TEXT = 4_096
"""Fields of one hash and characters in them that are kept once all is committed; 20,000 hashes are kept."""


class View(msgspec.Struct, eq=False):
    """What this process knows of one hash while deliveries that touch it are in flight.

    Attributes:
        values: fields as the finished handlers leave them, as far as is known.
        turns: those deliveries' turns, in the order in which they touched it.
        running: sequence numbers of the turns whose handlers still run, lowest first.
        left: how many of the turns have left.
        recent: the first of the values came from `RecentState`.
        epoch: raised whenever what is known turned out wrong.
    """

    values: dict[str, str | None] = {}
    turns: dict[Turn, None] = {}
    running: list[int] = []
    recent: bool = False
    epoch: int = 0
    left: int = 0
    waiting: dict[int, asyncio.Future[None]] | None = None
    changed: asyncio.Future[None] | None = None


def carry_over(unit: UnitOfWork, key: str, values: dict[str, str | None]) -> None:
    """Bring known values up to what the unit leaves; forget those only Redis can work out."""
    effects = unit.hashes.get(key)
    if effects is not None and effects:
        for field in tuple(values):  # only what was read once is worth following
            change = effects.changes.get(field)
            if effects.cleared:
                values[field] = None
            if type(change) is str:
                values[field] = change
            elif change is False:
                values[field] = None
            elif change is not None:
                stored, amount = values.pop(field) or "0", added(change)
                if amount is not None and is_canonical(stored):
                    values[field] = str(int(stored) + amount)
            elif effects.versioned and field.endswith(":version"):
                del values[field]
    for branch in unit.branches:
        _forget_branch(branch, key, values)


def _forget_branch(branch: Effects, key: str, values: dict[str, str | None]) -> None:
    if isinstance(branch, Newest) and branch.key == key:
        values.clear()
    if key in branch.hashes:
        values.clear()
    for inner in branch.branches:
        _forget_branch(inner, key, values)


def is_open(view: View, key: str, field: str, latest: int) -> bool:
    """Whether an uncommitted turn up to this number changes the field in a way only Redis can work out."""
    return any(
        turn.finished and turn.number <= latest and _changes_blindly(turn.unit, key, field)
        for turn in view.turns
    )


def is_small(values: dict[str, str | None]) -> bool:
    """Whether the values may be kept: thousands of hashes are."""
    if len(values) > MOST_KEPT:
        return False
    return sum([len(value) for value in values.values() if value]) <= MOST_KEPT_TEXT


def _changes_blindly(unit: UnitOfWork, key: str, field: str) -> bool:
    effects = unit.hashes.get(key)
    if effects is not None and (
        effects.cleared or field in effects.changes or (effects.versioned and field.endswith(":version"))
    ):
        return True
    return any(_branch_touches(branch, key) for branch in unit.branches)


def _branch_touches(branch: Effects, key: str) -> bool:
    if isinstance(branch, Newest) and branch.key == key:
        return True
    return key in branch.hashes or any(_branch_touches(inner, key) for inner in branch.branches)
