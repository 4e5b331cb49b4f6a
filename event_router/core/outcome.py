"""What becomes of an entry, and what the commit answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from event_router.core.effects import UnitOfWork

Reason = Literal["invalid", "unknown_type", "rejected", "max_deliveries", "poison", "too_large", "trimmed"]
REASONS: tuple[Reason, ...] = (
    "invalid",
    "unknown_type",
    "rejected",
    "max_deliveries",
    "poison",
    "too_large",
    "trimmed",
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Instead of effects: the entry moves to the dead letters, byte for byte, for this reason."""

    reason: Reason
    error: str
    deliveries: int
    consumer: str
    time: str
    fields: list[bytes] = field(default_factory=list)


class Verdict(IntEnum):
    """The commit's answer for one entry."""

    SETTLED = 0
    COMMITTED = 1
    CONFLICT = 2
    INVALID = 3
    DENIED = 4
    BROKEN = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, with what is wrong where it is `INVALID`, `DENIED` or `BROKEN`."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """One entry's part of a commit: what to do if the entry is still pending."""

    stream: str
    id: str
    work: UnitOfWork | DeadLetter
