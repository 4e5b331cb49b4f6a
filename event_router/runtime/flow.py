"""How much may be in flight, so that a pod added to a backlog gets work."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_LIMIT = 500
LEAST_LIMIT = 32
BUSY = 0.9


@dataclass(frozen=True, slots=True)
class Measured:
    """What happened since the last adjustment.

    Attributes:
        rate: settled entries a second.
        full: whether the limit was what held back reading.
        cpu: share of one processor this process used, 0 to 1.
    """

    rate: float
    full: bool
    cpu: float


def next_limit(limit: int, measured: Measured, most: int) -> int:
    """Return the new limit of entries in flight, from 32 to `most`.

    It grows while it is what holds back, unless the processor is: more would only wait here instead
    of going to another pod, and no longer fit the processor's cache. It shrinks to about one second
    of the measured rate when handlers keep the processor busy. A process that waits (for other
    services) is not slowed: its handlers need their number.
    """
    if measured.cpu >= BUSY and measured.rate < limit:
        return max(min(LEAST_LIMIT, most), int(measured.rate), limit // 2)
    if measured.full and (measured.cpu < BUSY or limit < min(measured.rate, FIRST_LIMIT)):
        return min(most, limit * 2)
    return limit
