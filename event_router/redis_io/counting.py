"""How many entries a part of a stream has: Redis has no command for it."""

from __future__ import annotations

from event_router.redis_client.script import Caller, Script

LAST_ID = f"{2**64 - 1}-{2**64 - 1}"
PAGE = 200
"""Entries one step looks at, which may be large: Redis waits for them."""


async def count_entries(
    caller: Caller, stream: str, first: str, last: str, *, most: int | None = None
) -> tuple[int, bool]:
    """Return how many entries there are from one id to another, and whether that is all of them.

    Args:
        first: as XRANGE takes it: `-`, an id, or `(id` for what is beyond it.
        last: `+`, an id, or `(id`.
        most: count no more than about so many; None counts to the end.

    Raises what `Link.call` raises.
    """
    if last == "(0-0" or first == f"({LAST_ID}":
        return 0, True  # nothing can be there, and Redis calls such a place invalid
    script = Script("count_entries")
    count = 0
    while most is None or count < most:
        found, reached = await script.run(caller, (stream,), (first, last, PAGE))
        count += found
        if found < PAGE:
            return count, True
        first = f"({reached.decode()}"
    return count, False
