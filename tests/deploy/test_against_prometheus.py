"""Every panel and every rule has data once real routers under load are scraped by a real Prometheus."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import prometheus_client
import pytest
import redis
from redis.asyncio import Redis

from event_router.messaging.subscriber import EventSubscriber
from event_router.ops.pubsub_metrics import PubSubMetrics
from tests.acceptance.workplace import APP_DIR
from tests.conftest import RouterFactory
from tests.deploy.dashboards import DASHBOARDS, chosen, queries
from tests.deploy.prometheus_rule import groups
from tests.deploy.prometheus_server import Prometheus
from tests.deploy.promql import metrics, unfiltered
from tests.deploy.scaler import scaler_queries
from tests.environment.servers import Server
from tests.environment.waiting import eventually

HANDLERS = "work:WorkHandler,handlers.chat:ChatEventHandler"
CHAT = "events:chat"
WITHIN = 20.0


@pytest.mark.once
async def test_every_panel_and_every_rule_has_data(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, tmp_path: Path
) -> None:
    if shutil.which("prometheus") is None:
        if os.environ.get("CI"):
            pytest.fail("prometheus is not installed")
        pytest.skip("prometheus is not installed")
    (tmp_path / "dependency-down").touch()
    routers = [
        new_router(
            server.url,
            pod,
            variables={"WORK_DIR": str(tmp_path), "PYTHONPATH": str(APP_DIR)},
            HANDLERS=HANDLERS,
            RETRY_BACKOFF_MS=1500,
        )
        for pod in ("a", "b")
    ]
    async with service_with_live_clients(server) as service:
        targets = {f"127.0.0.1:{router.http_port}": str(router.pod) for router in routers}
        # First, since it looks for targets no sooner than five seconds after its start.
        with Prometheus(tmp_path, {**targets, service: "service"}) as prometheus:
            for router in routers:
                router.start(ready=False)
            for router in routers:
                router.await_ready()
            await asyncio.to_thread(drive_until_everything_has_data, redis_client, prometheus)
            await asyncio.to_thread(pause_with_entries_waiting, redis_client, prometheus)
            names = prometheus.names()
            assert {
                where: unknown for where, text in asked().items() if (unknown := metrics(text) - names)
            } == {}
            for rule in prometheus.rules():
                assert rule["health"] == "ok", rule
            for dashboard in DASHBOARDS.values():
                for variable in dashboard["templating"]["list"]:
                    if variable["type"] == "query":
                        metric, label = variable["query"]["query"][len("label_values(") : -1].split(", ")
                        assert prometheus.label_values(label, metric), variable["name"]


def asked() -> dict[str, str]:
    """Every expression, made so that it has a result wherever its metrics have one."""
    found = {where: chosen(query) for where, query in queries().items()}
    for group in groups():
        for rule in group["rules"]:
            found[rule.get("alert") or rule["record"]] = unfiltered(rule["expr"])
    return found | {"scaler": scaler_queries()[CHAT]}


def drive_until_everything_has_data(client: redis.Redis, prometheus: Prometheus) -> None:
    """Publish events that succeed, fail and are rejected, until no expression is without data."""
    missing = dict(asked())
    rounds = iter(range(1_000_000))

    def none_is_missing() -> bool:
        publish(client, next(rounds))
        for where, expression in list(missing.items()):
            if prometheus.query(expression):
                del missing[where]
        return not missing

    eventually(none_is_missing, within=WITHIN, every=0.2, what=lambda: f"data of {missing}")


def pause_with_entries_waiting(client: redis.Redis, prometheus: Prometheus) -> None:
    """The scaler is told of no entries, although some wait."""
    paused = f'event_router_stream_paused{{stream="{CHAT}"}}'
    client.set(f"event-router:pause:event-router-group:{CHAT}", '{"reason":"mending","by":"kim"}')
    eventually(lambda: prometheus.query(paused) == [1, 1], within=WITHIN)
    await_quiet = f'max(event_router_pending_messages{{stream="{CHAT}"}}) == 0'
    eventually(lambda: prometheus.query(await_quiet), within=WITHIN)
    publish(client, -1)
    lag = f'max(event_router_consumer_lag{{stream="{CHAT}"}})'
    eventually(lambda: prometheus.query(lag) == [20], within=WITHIN)
    assert prometheus.query(scaler_queries()[CHAT]) == [0]


def publish(client: redis.Redis, number: int) -> None:
    """A few events of each kind."""
    pipeline = client.pipeline(transaction=False)
    for thing in range(20):
        kind = "rejected" if thing == 0 else "dependent" if thing == 1 and number < 5 else "count"
        pipeline.xadd("events:work", {"type": kind, "thing_id": f"{number}-{thing}"})
        job = {"user_id": "1", "job_id": f"{number}-{thing}"}
        pipeline.xadd(CHAT, {"type": "message_complete", **job})
    pipeline.execute()


@asynccontextmanager
async def service_with_live_clients(server: Server) -> AsyncIterator[str]:
    """The address of a service's metrics, which subscribes to the progress of jobs."""
    observed = PubSubMetrics()
    client = Redis.from_url(server.url)
    subscriber = EventSubscriber(client, observer=observed)

    @subscriber.on("sse:events:*")
    async def show(message: dict[str, object], channel: str) -> None: ...

    with served(observed) as address:
        running = asyncio.create_task(subscriber.run())
        try:
            yield address
        finally:
            await subscriber.close()
            await running
            await client.aclose()


@contextmanager
def served(collector: PubSubMetrics) -> Iterator[str]:
    """Serve a collector's metrics on loopback; yields `host:port`."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector)
    http, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
