"""What becomes of an entry, and what the commit answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import msgspec

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
MAX_LETTER_FIELDS = 3_900
"""A script cannot XADD more: Lua's unpack fails at about 8,000 values."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Instead of effects: the entry moves to the dead letters, byte for byte, for this reason."""

    reason: Reason
    error: str
    deliveries: int
    consumer: str
    time: str
    fields: list[bytes] = field(default_factory=list)

    def entry(self, stream: str, entry_id: str) -> list[bytes]:
        """Return names and values, in turn, of the dead letter of an entry: its own, then ours."""
        own = self.fields
        if len(own) > 2 * MAX_LETTER_FIELDS:
            own = [b"dlq_raw", msgspec.msgpack.encode(own)]
        about = {
            b"dlq_stream": stream,
            b"dlq_id": entry_id,
            b"dlq_reason": self.reason,
            b"dlq_error": self.error,
            b"dlq_deliveries": str(self.deliveries),
            b"dlq_consumer": self.consumer,
            b"dlq_time": self.time,
        }
        flat = list(own)
        for name, value in about.items():
            flat += (name, value.encode("utf-8", "backslashreplace"))
        return flat


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


class Answers(list[Answer]):
    """The commit's answers for a batch.

    Attributes:
        blocked_s: how long the commit kept Redis from doing anything else, in seconds.
    """

    blocked_s = 0.0


class Settlement(msgspec.Struct):
    """One entry's part of a commit: what to do if the entry is still pending.

    Attributes:
        decided_on: what the handler had read when it decided on a dead letter; it is checked, too.
        unique_id: what a repetition of the event by its producer has in common with it, if anything.
    """

    stream: str
    id: str
    work: UnitOfWork | DeadLetter
    decided_on: UnitOfWork | None = None
    unique_id: str | None = None
