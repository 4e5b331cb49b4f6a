"""Subscribers that keep every message, and jobs that are published step by step, for tests of the fan-out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any

import redis

from tests.environment.routers import Router
from tests.environment.servers import Server
from tests.environment.waiting import eventually

CHAT, OUTBOX, KEY = "events:chat", "outbox:chat", "event-router:relay:outbox:chat"


class Watcher(threading.Thread):
    """Subscribes to all channels of jobs and keeps what arrives; comes back by itself after an outage."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._ended = threading.Event()
        self.subscribed = threading.Event()
        self.messages: list[dict[str, Any]] = []

    def __enter__(self) -> Watcher:
        self.start()
        assert self.subscribed.wait(10), "subscribed"
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Listen until told to end."""
        while not self._ended.wait(0.01):
            try:
                with self._server.client() as client, client.pubsub() as pubsub:
                    pubsub.psubscribe("sse:events:*")
                    while not self._ended.is_set():
                        self._take(pubsub.get_message(timeout=0.05))
            except (redis.RedisError, OSError):
                self.subscribed.clear()

    def _take(self, message: dict[str, Any] | None) -> None:
        if message and message["type"] == "psubscribe":
            self.subscribed.set()
        elif message:
            self.messages.append(json.loads(message["data"]))

    def ids(self) -> list[str]:
        """The ids of what arrived, in order."""
        return [message["id"] for message in list(self.messages)]

    def first_ids(self) -> list[str]:
        """The ids without repetitions."""
        return list(dict.fromkeys(self.ids()))


def begin_jobs(client: redis.Redis, numbers: Iterable[int]) -> None:
    """Publish the first step of a job each."""
    pipeline = client.pipeline(transaction=False)
    for number in numbers:
        step = {"job_id": f"j{number}", "stage": "s", "status": "running", "seq": 0}
        pipeline.xadd(CHAT, {"type": "progress", **step})
    pipeline.execute()


def leader(routers: Iterable[Router]) -> Router:
    """The router that publishes the chat domain's log, once there is one."""

    def leading() -> list[Router]:
        return [
            router
            for router in routers
            if router.is_running and router.readyz()[1]["relays"][OUTBOX] == "leads"
        ]

    return eventually(leading, within=15, what="a relay leads")[0]


def logged_ids(client: redis.Redis) -> list[str]:
    """The ids in the fan-out log."""
    return [str(entry_id) for entry_id, _ in client.xrange(OUTBOX)]
