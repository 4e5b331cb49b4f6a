"""Presence with routers: what a service notes reaches those who listen, and who vanishes goes offline."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from event_router.patterns import Presence
from tests.conftest import RouterFactory
from tests.environment.servers import Server
from tests.environment.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.once]
TTL_S = 0.5


def test_one_who_vanishes_is_announced_once_by_two_routers(
    server: Server, new_router: RouterFactory, redis_client: redis.Redis
) -> None:
    for pod in ("a", "b"):
        new_router(server.url, pod, PRESENCE_TTL_S=TTL_S).start()
    with redis_client.pubsub(ignore_subscribe_messages=True) as listening:
        listening.subscribe("presence")
        listening.get_message(timeout=1)
        asyncio.run(noted(server))
        heard: dict[str, dict[str, Any]] = {}

        def offline() -> bool:
            while message := listening.get_message():
                body = json.loads(message["data"])
                heard[body["id"]] = body  # at least once, under one id
            return any(body["status"] == "offline" for body in heard.values())

        eventually(offline, within=15, what=lambda: heard)
    told = [(body["type"], body["user_id"], body["previous"], body["status"]) for body in heard.values()]
    assert told == [("presence", "7", "offline", "online"), ("presence", "7", "online", "offline")]
    assert redis_client.xlen("outbox:presence") == 2
    assert all(body["timestamp"] >= body["last_seen"] for body in heard.values())


async def noted(server: Server) -> None:
    """Come online, and never say anything again."""
    async with Redis(port=server.port) as client:
        await Presence(client, ttl_s=TTL_S).update("7", connection="phone")
