"""Which streams are not read together with the others, and when each is asked for again."""

from __future__ import annotations

from collections.abc import Collection

from event_router.runtime.connectivity import Clock, growing_pause


class LeftOut:
    """Streams whose read Redis refuses or denies: one such would keep all of a read from being answered.

    Each is asked for by itself after pauses that grow, and is read with the others once it is answered.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: dict[str, int] = {}
        self._until: dict[str, float] = {}  # monotonic seconds

    def __repr__(self) -> str:
        return f"<LeftOut {', '.join(self._until) or 'none'}>"

    def __contains__(self, stream: str) -> bool:
        return stream in self._until

    def __len__(self) -> int:
        return len(self._until)

    def leave(self, stream: str) -> None:
        """Leave a stream out for longer than the last time."""
        times = self._times.get(stream, 0)
        self._times[stream] = times + 1
        self._until[stream] = self._clock.monotonic() + growing_pause(times, self._clock.random())

    def take_back(self, streams: Collection[str]) -> None:
        """Read these with the others again."""
        for stream in streams:
            self._times.pop(stream, None)
            self._until.pop(stream, None)

    def keep(self, streams: Collection[str]) -> None:
        """Forget all but these."""
        self.take_back([stream for stream in self._until if stream not in streams])

    def due(self) -> list[str]:
        """Return those that shall be asked for now."""
        now = self._clock.monotonic()
        return [stream for stream, until in self._until.items() if until <= now]

    def due_in_s(self) -> float | None:
        """Return the seconds until the next is due; None if nothing is left out."""
        if not self._until:
            return None
        return max(0.0, min(self._until.values()) - self._clock.monotonic())
