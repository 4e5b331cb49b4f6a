"""What the metrics say of the group on each stream, read from Redis now and then."""

from __future__ import annotations

from collections.abc import Sequence

from event_router.ops.metrics import GroupFigures, RouterMetrics
from event_router.redis_client.connections import Link
from event_router.redis_io.groups import Groups
from event_router.redis_io.lag import inspect
from event_router.runtime.connectivity import Clock
from event_router.runtime.observer import Observer
from event_router.runtime.troubles import StreamTroubles

FIGURES = "figures"


class Figures:
    """Reads the figures of a group on its streams, and mends and counts what only shows in them.

    Its duties: hand the figures to the metrics; repair a lag that Redis keeps wrong; count entries that were
    trimmed unread.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        link: Link,
        groups: Groups,
        group: str,
        metrics: RouterMetrics,
        observer: Observer,
        troubles: StreamTroubles,
        streams: Sequence[str],
    ) -> None:
        self._clock = clock
        self._link = link
        self._groups = groups
        self._group = group
        self._metrics = metrics
        self._observer = observer
        self._troubles = troubles
        self._streams = streams

    async def refresh(self) -> None:
        """Do all of it once. Raises RedisUnavailable; what one stream is refused keeps no other back."""
        for stream in self._streams:
            with self._troubles.apart(FIGURES, stream, needed=False):
                await self._refresh(stream)
            if (FIGURES, stream) in self._troubles:
                self._metrics.groups.pop(stream, None)  # unknown

    async def _refresh(self, stream: str) -> None:
        status = await inspect(self._link, stream, self._group)
        self._metrics.groups[stream] = GroupFigures(
            status.lag,
            status.lag_seconds,
            status.pending,
            status.dead_letters,
            length=status.length,
            added=status.added,
            consumers=status.consumers,
            pending_of=status.pending_of,
        )
        self._metrics.clock_offset_ms = status.server_ms - self._clock.wall_ms()
        if status.lag_is_wrong:
            await self._groups.repair_lag(stream)
        if status.trimmed_unread and (
            uncounted := await self._groups.count_trimmed(stream, status.delivered, status.trimmed_unread)
        ):
            self._observer.unread_trimmed(stream, uncounted)
