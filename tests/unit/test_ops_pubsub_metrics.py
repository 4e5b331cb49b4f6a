"""The metrics of Pub/Sub, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from event_router.ops.pubsub_metrics import PubSubMetrics


def scraped(metrics: PubSubMetrics) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        (sample.name.removeprefix("event_router_pubsub_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_each_report_has_its_metric() -> None:
    metrics = PubSubMetrics(types=("login",))
    metrics.published("notifications", "login", 3)
    metrics.received("notifications", "login")
    metrics.handler_failed("updates", "Feed.changed")
    metrics.dropped("updates", 7)
    metrics.undecodable("updates")
    metrics.duplicate("updates")
    metrics.outage_began("gone")
    metrics.processed("updates", "Feed.changed", 0.3)
    found = scraped(metrics)
    assert found["messages_total", "notifications", "login"] == 2
    assert found["handler_failures_total", "updates", "Feed.changed"] == 1
    assert found["dropped_total", "updates"] == 7
    assert found["undecodable_total", "updates"] == 1
    assert found["duplicates_total", "updates"] == 1
    assert found[("connections_lost_total",)] == 1
    assert found["processing_duration_seconds_count", "updates", "Feed.changed"] == 1
    assert found["processing_duration_seconds_bucket", "updates", "Feed.changed", "0.25"] == 0
    assert found["processing_duration_seconds_bucket", "updates", "Feed.changed", "0.5"] == 1


def test_types_that_nobody_named_are_one_series() -> None:
    metrics = PubSubMetrics(types=("login",))
    for number in range(100):
        metrics.received("events:{type}", f"type-{number}")
    assert scraped(metrics)["messages_total", "events:{type}", "other"] == 100


def test_subscribers_are_this_process_s_own_where_it_has_any() -> None:
    metrics = PubSubMetrics()
    metrics.published("notifications", "", 5)
    metrics.published("presence", "", 4)
    metrics.subscribed("notifications", 2)
    found = scraped(metrics)
    assert found["subscribers", "notifications"] == 2
    assert found["subscribers", "presence"] == 4
    metrics.subscribed("notifications", 0)
    assert scraped(metrics)["subscribers", "notifications"] == 0
