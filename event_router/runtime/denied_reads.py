"""Reads of state that wait for a permission, apart from all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from event_router.core.errors import RedisDenied
from event_router.runtime.connectivity import Connectivity

Place = tuple[str, str]
"""A key and a field."""
Wanted = tuple[Place, asyncio.Future[str | None]]
"""A place, and who waits for the value there."""

ROLE = "denied reads"
"""A role of its own: other reads are answered meanwhile, and that must not end the outage."""


class DeniedReads:
    """Keeps reads that the user may not make, and has them asked for again after pauses that grow.

    It is no event's fault, so none fails or runs out of time; the router is not ready until the last of
    them is answered or given up.
    """

    def __init__(self, connectivity: Connectivity, ask_again: Callable[[list[Wanted]], None]) -> None:
        self._connectivity = connectivity
        self._ask_again = ask_again
        self._open: dict[asyncio.Future[str | None], Place] = {}
        self._pause: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<DeniedReads {len(self._open)} waiting>"

    def settle(self, denied: list[Wanted], error: RedisDenied | None) -> None:
        """Take what was denied of a batch of reads that was answered, and the error of one of them."""
        if not self._open and error is None:
            return
        self._open.update((future, place) for place, future in denied)
        if self._still_open() and error is not None and self._pause is None:
            self._pause = asyncio.create_task(self._connectivity.failed(ROLE, error))
            self._pause.add_done_callback(self._pause_over)

    def _pause_over(self, pause: asyncio.Task[None]) -> None:
        self._pause = None
        if self._still_open():
            self._ask_again([(place, future) for future, place in self._open.items()])

    def _still_open(self) -> bool:
        """Forget those that were answered or given up; the last of them ends the outage."""
        self._open = {future: place for future, place in self._open.items() if not future.done()}
        if not self._open:
            self._connectivity.answered(ROLE)
        return bool(self._open)

    def stop(self) -> None:
        """Ask for nothing any more."""
        if self._pause is not None:
            self._pause.remove_done_callback(self._pause_over)
            self._pause.cancel()
            self._pause = None
