"""What relays do, as Prometheus and the log show it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from event_router.core.channels import Channels
from event_router.ops.fan_out import FanOutReports, OutageReports
from tests.unit.runtime_fakes import Time

CHAT = "outbox:chat"


@pytest.fixture
def reports() -> FanOutReports:
    return FanOutReports(
        Time().clock,
        channel_label=Channels().label,
        types=("progress",),
        outboxes=(CHAT, "outbox:scan"),
    )


def value(reports: FanOutReports, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(reports)
    return registry.get_sample_value(f"event_router_{name}", labels)


def test_messages_are_counted_by_template_and_registered_type(reports: FanOutReports) -> None:
    for job in ("1", "2"):
        reports.message_published(f"sse:events:{job}".encode(), "progress", 3)
    reports.message_published(b"mine:\xff", "hostile\n", 0)
    assert value(reports, "pubsub_messages_total", channel="sse:events:{job_id}", type="progress") == 2
    assert value(reports, "pubsub_messages_total", channel="other", type="other") == 1
    assert value(reports, "pubsub_subscribers", channel="sse:events:{job_id}") == 3


def test_drops_are_counted_and_said_but_not_too_often(reports: FanOutReports) -> None:
    assert value(reports, "pubsub_dropped_total", channel="unknown") == 0
    with capture_logs() as lines:
        for _ in range(50):
            reports.message_dropped(CHAT, b"user:7", "no JSON")
        reports.message_dropped(CHAT, b"", "no channel")
        reports.trimmed_unpublished(CHAT, 30)
    assert value(reports, "pubsub_dropped_total", channel="user:{user_id}") == 50
    assert value(reports, "pubsub_dropped_total", channel="unknown") == 31
    assert [line["event"] for line in lines] == [
        "message_not_published",
        "message_not_published",
        "messages_trimmed_unpublished",
    ]
    assert lines[-1]["messages"] == 30


def test_who_leads_is_a_gauge(reports: FanOutReports) -> None:
    reports.leads(CHAT, 7)
    assert value(reports, "relay_leads", outbox=CHAT) == 1
    assert value(reports, "relay_leads", outbox="outbox:scan") == 0
    reports.stands_by(CHAT, "given back")
    assert value(reports, "relay_leads", outbox=CHAT) == 0


def test_a_change_that_only_an_outage_makes_is_for_debugging(reports: FanOutReports) -> None:
    with capture_logs() as lines:
        reports.stands_by(CHAT, "Connection closed by server.", outage=True)
        reports.leads(CHAT, 8, outage=True)
        reports.stands_by(CHAT, "given back")
        reports.leads(CHAT, 9)
    assert [line["log_level"] for line in lines] == ["debug", "debug", "info", "info"]
    assert value(reports, "relay_leads", outbox=CHAT) == 1


def test_an_outage_is_a_line_at_its_begin_and_one_at_its_end() -> None:
    connected: dict[str, bool] = {"streams": True}
    outages = OutageReports("pubsub", connected)
    assert connected == {"streams": True, "pubsub": True}
    with capture_logs() as lines:
        outages.outage_began("publish", "refused")
        assert connected["pubsub"] is False
        outages.outage_ended(2.5)
    assert connected["pubsub"] is True
    assert [(line["event"], line["role"]) for line in lines] == [
        ("fan_out_unavailable", "pubsub"),
        ("fan_out_available", "pubsub"),
    ]
    assert lines[1]["outage_s"] == 2.5


def test_unexpected_errors_show_their_place(reports: FanOutReports) -> None:
    with capture_logs() as lines:
        reports.relay_failed(CHAT, ValueError("odd"))
        reports.refused("relay", "wrong type")
    assert lines[0]["error"] == "odd"
    assert isinstance(lines[0]["exc_info"], ValueError)
    assert lines[1]["event"] == "redis_refused"
