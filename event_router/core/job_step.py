"""The step of a job that a `progress` event brings."""

from __future__ import annotations

import msgspec

from event_router.core.event import JsonText, Percent, Sequence, Text

TERMINAL_STATUSES = frozenset({"done", "completed", "complete", "failed", "error", "cancelled"})
PROGRESS = "progress"


def ends_job(status: str) -> bool:
    """Whether a step of this status ends its job: done, completed, complete, failed, error, cancelled."""
    return status in TERMINAL_STATUSES


class JobStep(msgspec.Struct):
    """What a `progress` event says of its job."""

    stage: Text
    status: Text
    seq: Sequence
    progress: Percent | None = None
    message: Text | None = None
    result: JsonText | None = None
