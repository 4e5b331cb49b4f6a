"""Spans of a whole router as a collector gets them; routers without OpenTelemetry, or without a collector."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.acceptance.workplace import APP_DIR
from tests.conftest import RouterFactory
from tests.environment.collector import Collector
from tests.environment.routers import Router, environment, program
from tests.environment.servers import Server
from tests.environment.waiting import eventually

pytestmark = pytest.mark.once

STREAM = "events:rides"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
OURS = {"APP_DIR": APP_DIR, "HANDLERS": "traced:RideHandler"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that answers."""
    with Collector() as collector:
        yield collector


def rides(client: redis.Redis, bike: str = "b1") -> str | None:
    found = client.hget(f"state:bike:{bike}", "rides")
    return None if found is None else str(found)


def test_a_trace_leads_from_the_producer_through_all_that_follows(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, collector: Collector
) -> None:
    router = new_router(server.url, variables=collector.variables, TRACING="parent", **OURS).start()
    ride = {"type": "ridden", "bike_id": "b1", "traceparent": TRACEPARENT}
    first = str(redis_client.xadd(STREAM, ride))
    eventually(lambda: len(collector.spans(f"commit {STREAM}")) == 2, within=10)

    (ridden,) = collector.spans(f"process {STREAM}", messaging__message__id=first)
    assert (ridden.trace_id, ridden.parent_id, ridden.links) == (TRACE, PARENT, [(TRACE, PARENT)])
    assert ridden.service == "event-router"
    assert ridden.attributes["messaging.client.id"] == router.consumer
    assert ridden.attributes["messaging.consumer.group.name"] == "event-router-group"
    assert ridden.attributes["server.port"] == server.port
    (own,) = collector.spans("count the ride")
    assert (own.trace_id, own.parent_id) == (TRACE, ridden.span_id)
    (checked,) = collector.spans("process", event_router__event__type="checked")
    assert (checked.trace_id, checked.parent_id) == (TRACE, own.span_id)
    assert [span.links for span in collector.spans("commit")] == [
        [(TRACE, ridden.span_id)],
        [(TRACE, checked.span_id)],
    ]
    assert [span.links for span in collector.spans(f"receive {STREAM}")] == [
        [(TRACE, PARENT)],
        [(TRACE, own.span_id)],
    ]


def test_a_dead_letter_and_a_stop_with_spans_that_wait(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, collector: Collector
) -> None:
    variables = collector.variables | {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "bikes"}
    router = new_router(server.url, variables=variables, TRACING="links", **OURS).start()
    stolen = {"type": "stolen", "bike_id": "b1", "traceparent": TRACEPARENT}
    redis_client.xadd(STREAM, stolen)
    eventually(lambda: redis_client.xlen(f"dlq:{STREAM}"), within=10)
    assert collector.spans() == []
    router.terminate()
    assert router.wait(10) == 0
    (letter,) = collector.spans("dead-letter", event_router__dead_letter__reason="rejected")
    (attempt,) = collector.spans("process")
    assert letter.failed
    assert attempt.failed
    assert letter.links == [(TRACE, PARENT), (attempt.trace_id, attempt.span_id)]
    assert letter.service == "bikes"
    assert TRACE not in (letter.trace_id, attempt.trace_id)


def test_a_collector_that_does_not_answer_holds_up_neither_events_nor_the_end(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    with Collector(silent=True) as collector:
        router = new_router(server.url, variables=collector.variables, TRACING="parent", **OURS).start()
        redis_client.xadd(STREAM, {"type": "ridden", "bike_id": "b1"})
        eventually(lambda: collector.requests, within=10)
        for number in range(200):
            redis_client.xadd(STREAM, {"type": "ridden", "bike_id": f"b{number}"})
        eventually(lambda: rides(redis_client, "b199"), within=10)
        router.terminate()
        assert router.wait(10) == 0
        assert [line["event"] for line in router.log()].count("spans_not_sent") == 1


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """An environment in which OpenTelemetry cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'opentelemetry':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    return {"PYTHONPATH": str(tmp_path)}


def test_a_router_without_opentelemetry_routes(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, without: dict[str, str]
) -> None:
    router: Router = new_router(server.url, variables=without).start()
    redis_client.xadd("events:auth", {"type": "login", "user_id": "1"})
    eventually(lambda: redis_client.hget("state:user:1", "login_count") == "1", within=10)
    router.terminate()
    assert router.wait(10) == 0


@pytest.mark.parametrize("command", ["run", "check"])
def test_asking_for_what_is_not_installed_is_refused_in_one_line(
    command: str, without: dict[str, str], tmp_path: Path
) -> None:
    settings = environment({"TRACING": "links", "REDIS_STREAMS_URL": "redis://127.0.0.1:1", "HTTP_PORT": 0})
    line = refused(command, settings | without, tmp_path)
    assert "EVENT_ROUTER_TRACING is 'links'" in line
    assert "pip install 'event-router[otel]'" in line


@pytest.mark.parametrize(
    ("command", "variable", "value", "said"),
    [
        ("run", "OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: no exporter 'zipkin' is installed"),
        ("check", "OTEL_EXPORTER_OTLP_PROTOCOL", "smoke", "OTEL_EXPORTER_OTLP_PROTOCOL: 'smoke' is unknown"),
        ("run", "OTEL_BSP_MAX_QUEUE_SIZE", "-1", "OTEL_*: a variable of OpenTelemetry is wrong"),
    ],
)
def test_a_wrong_variable_is_refused_in_one_line(
    command: str, variable: str, value: str, said: str, tmp_path: Path
) -> None:
    settings = environment({"TRACING": "links", "REDIS_STREAMS_URL": "redis://127.0.0.1:1", "HTTP_PORT": 0})
    assert said in refused(command, settings | {variable: value}, tmp_path)


def refused(command: str, variables: dict[str, str], folder: Path) -> str:
    """The one line with which a command refuses, with exit code 2."""
    done = subprocess.run(
        [str(program()), command], env=variables, cwd=folder, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line
