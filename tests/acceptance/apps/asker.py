"""A program that asks and prints the answer: to be killed and started again while it waits."""

from __future__ import annotations

import asyncio
import json
import sys

from redis.asyncio import Redis

from event_router.patterns import HumanInput


async def main(url: str) -> None:
    async with Redis.from_url(url) as client:
        value = await HumanInput(client).request_input("j", "u", "Size?", {"enum": ["S", "M", "L"]}, 60)
    print(json.dumps(value))


asyncio.run(main(sys.argv[1]))
