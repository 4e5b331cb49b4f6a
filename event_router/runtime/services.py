"""The small contract of everything that runs in the background."""

from __future__ import annotations

import asyncio

from event_router.runtime.connectivity import Clock

CANCEL_AGAIN_S = 0.1


class Service:
    """A loop in a task of its own: start once, stop as often as you like, even before the start.

    Subclasses implement `run`. They call `beat` whenever they make progress and `rest` before they
    wait for work, so that a stuck loop can be told from an idle one.
    """

    name = "service"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._task: asyncio.Task[None] | None = None
        self._busy_since: float | None = None

    def __repr__(self) -> str:
        state = "new" if self._task is None else "stopped" if self._task.done() else "running"
        return f"<{type(self).__name__} {state}>"

    def start(self) -> asyncio.Task[None]:
        """Start the loop; starting twice returns the same task."""
        if self._task is None:
            self._task = asyncio.create_task(self.run(), name=self.name)
        return self._task

    async def stop(self) -> None:
        """End the loop at its next wait, and wait for its end."""
        task = self._task
        while task is not None and not task.done():
            # Again and again: in Python 3.11 wait_for, which redis-py uses for every command, swallows a
            # cancellation that arrives as what it waits for completes.
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_AGAIN_S)

    async def run(self) -> None:
        """Work until cancelled."""
        raise NotImplementedError

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The loop's task; None until it is started."""
        return self._task

    def beat(self) -> None:
        """Note progress."""
        self._busy_since = self.clock.monotonic()

    def rest(self) -> None:
        """Note that there is nothing to do."""
        self._busy_since = None

    def stuck_for(self) -> float:
        """Return the seconds since the last progress, 0 while at rest."""
        return 0.0 if self._busy_since is None else self.clock.monotonic() - self._busy_since
