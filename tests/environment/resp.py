"""Reading whole RESP frames as the bytes they came in (redis.io: Redis serialization protocol)."""

from __future__ import annotations

import asyncio

_SIZED = b"$=!"  # bulk string, verbatim string, bulk error
_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}  # array, set, push: n parts; map, attribute: 2 n


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame, inner frames included. Raises IncompleteReadError when the connection ends."""
    parts: list[bytes] = []
    missing = 1
    while missing:
        head = await reader.readuntil(b"\r\n")
        parts.append(head)
        missing -= 1
        kind = head[:1]
        if kind in _AGGREGATES:
            missing += max(int(head[1:-2]), 0) * _AGGREGATES[kind]
            if kind == b"|":
                missing += 1  # an attribute comes before the frame it is about
        elif kind and kind in _SIZED and int(head[1:-2]) >= 0:
            parts.append(await reader.readexactly(int(head[1:-2]) + 2))
    return b"".join(parts)


def is_push(frame: bytes) -> bool:
    """Whether the server sent it unasked (RESP3)."""
    return frame[:1] == b">"


def command_name(request: bytes) -> str:
    """The command of a request frame in upper case, e.g. `XREADGROUP`."""
    words = request.split(b"\r\n", 3)
    return words[2].decode(errors="replace").upper() if request[:1] == b"*" and len(words) > 2 else ""
