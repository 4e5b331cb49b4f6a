"""Pauses as they are stored: one key a stream, which Redis takes away when its time is over."""

from __future__ import annotations

from collections.abc import Sequence

from event_router.core.errors import RedisRefused
from event_router.core.pause import Pause, parse_pause, pause_key, stored_pause
from event_router.redis_client.script import Caller


class StoredPauses:
    """The pauses of one group. Every method raises what `Link.call` raises."""

    def __init__(self, caller: Caller, group: str) -> None:
        self._caller = caller
        self._group = group

    async def read(self, streams: Sequence[str]) -> dict[str, Pause]:
        """Return the pause of each stream that is paused, in one command. A key of a wrong type is none."""
        keys = [pause_key(self._group, stream) for stream in streams]
        found = await self._caller.call("MGET", *keys) if keys else []
        return {
            stream: parse_pause(stream, raw)
            for stream, raw in zip(streams, found, strict=True)
            if raw is not None
        }

    async def pause(self, stream: str, *, reason: str, by: str, for_ms: int) -> tuple[Pause, Pause | None]:
        """Pause a stream for so long; return the pause, and the one that it replaces.

        Safe to send again: the last one counts.
        """
        seconds, micros = await self._caller.call("TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        made = Pause(stream, reason, by, now, now + for_ms)
        key = pause_key(self._group, stream)
        before = await self._only_text(stream, "SET", key, stored_pause(made), "PX", for_ms, "GET")
        return made, before

    async def resume(self, stream: str) -> Pause | None:
        """End the pause of a stream; return it, None if there was none."""
        key = pause_key(self._group, stream)
        before = await self._only_text(stream, "GET", key)
        await self._caller.call("DEL", key)
        return before

    async def _only_text(self, stream: str, *command: str | int | bytes) -> Pause | None:
        try:
            raw = await self._caller.call(*command)
        except RedisRefused as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            raise RedisRefused(
                f"{command[1]!s} is no pause but a key of another type, which pauses nothing; look at it and"
                " delete it"
            ) from error
        return None if raw is None else parse_pause(stream, raw)
