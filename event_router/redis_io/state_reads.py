"""Reads of state fields, many in one step."""

from __future__ import annotations

from collections.abc import Sequence

from event_router.core.errors import InvalidState, RedisDenied
from event_router.redis_client.connections import Link
from event_router.redis_client.script import Script
from event_router.redis_io.commits import packed_places


class StateReads:
    """Reads hash fields over one connection of its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._script = Script("read_state")

    async def read(self, places: Sequence[tuple[str, str]]) -> list[str | InvalidState | RedisDenied | None]:
        """Return the value at each (key, field), None where absent.

        In place of a value stands InvalidState where the key is no hash, and RedisDenied where this
        user may not read it. Raises what `Link.call` raises, when nothing could be read.
        """
        reply = await self._script.run(self._link, args=(packed_places(places),))
        values: list[str | InvalidState | RedisDenied | None] = []
        for (key, _), value in zip(places, reply, strict=True):
            if value is None:
                values.append(None)
            elif isinstance(value, bytes):
                values.append(value.decode("utf-8", "surrogateescape"))
            elif value[0] is None:
                command = value[1].decode()
                values.append(RedisDenied(f"NOPERM this user may not run {command} on {key}"))
            else:
                values.append(InvalidState(f"key {key!r} is a {value[0].decode()}, not a hash"))
        return values
