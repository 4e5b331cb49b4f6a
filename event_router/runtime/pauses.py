"""Watches which streams an operator has paused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from event_router.core.pause import Pause
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.observer import Observer
from event_router.runtime.periodic import Periodic

TELLS = 2
"""How often a change is passed on: a read that was sent as it came about blocks only after the first time."""


class PausePort(Protocol):
    """Where pauses are kept."""

    async def read(self, streams: Sequence[str]) -> dict[str, Pause]:
        """Return the pause of each stream that is paused."""


async def _nobody() -> None:
    """Nobody waits for a change."""


class Pauses(Periodic):
    """Knows, within half a second or so, which streams are paused. While Redis is away it stays as it was.

    Attributes:
        changed: told when a stream is paused or goes on, so that nobody keeps waiting as before.
    """

    name = "pauses"
    interval_s = 0.5

    def __init__(
        self,
        clock: Clock,
        *,
        pauses: PausePort,
        connectivity: Connectivity,
        observer: Observer,
        streams: Sequence[str],
    ) -> None:
        super().__init__(clock, connectivity=connectivity, observer=observer)
        self._pauses = pauses
        self._streams = streams
        self._tell = 0
        self.current: dict[str, Pause] = {}
        self.changed: Callable[[], Awaitable[None]] = _nobody

    def paused(self, stream: str) -> bool:
        """Whether entries of this stream must neither be read nor claimed nor tried again."""
        return stream in self.current

    def readiness(self) -> dict[str, object]:
        """Return what is paused, for `/readyz`; it makes no router unready."""
        return {
            "paused": {
                stream: {"reason": pause.reason, "by": pause.by, "until_ms": pause.until_ms}
                for stream, pause in self.current.items()
            }
        }

    async def run_once(self) -> None:
        """Look once, and pass on what has changed."""
        found = await self._pauses.read(self._streams)
        before, self.current = self.current, found
        if found.keys() != before.keys():
            self._tell = TELLS
        for stream, pause in found.items():
            if pause != before.get(stream):
                self._observer.paused(pause)
        for stream in before.keys() - found.keys():
            self._observer.resumed(stream)
        if self._tell:
            await self.changed()
            self._tell -= 1
