"""The router within a program of one's own: what it opened is closed when it is over, the program goes on."""

from __future__ import annotations

import asyncio

import pytest
import redis

from event_router import EventRouter
from event_router.runtime.signals import StopRequest
from event_router.settings import load
from handlers.auth import AuthEventHandler
from tests.environment.servers import Server
from tests.environment.waiting import eventually

WATCH = "event-router-watch"


@pytest.mark.once
async def test_a_router_that_stopped_leaves_no_connection(server: Server, redis_client: redis.Redis) -> None:
    def opened() -> set[str]:
        """The names of the router's connections, as the server knows them."""
        return {
            client["name"]
            for client in redis_client.client_list()
            if client["name"].startswith("event-router")
        }

    settings = load(redis_streams_url=server.url, http_host="127.0.0.1", http_port=0)
    request = StopRequest()
    serving = asyncio.create_task(EventRouter(settings).register(AuthEventHandler()).serve(request))
    try:
        await asyncio.to_thread(eventually, lambda: WATCH in opened(), within=10)
    finally:
        request.ask()
        assert await asyncio.wait_for(serving, 20) == 0
    await asyncio.to_thread(eventually, lambda: not opened(), within=3, what=opened)
