"""Every metric of the design, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from event_router.core.outcome import REASONS, DeadLetter
from event_router.ops.metrics import GroupFigures, RouterMetrics, new_registry
from event_router.runtime.delivery import Delivery
from tests.unit.runtime_fakes import BIKES, CARS, FIRST_MS, Time, entry, entry_id

TYPE = {"stream": BIKES, "event_type": "ridden"}
GROUP = {"stream": BIKES, "group": "g"}


class Scraped:
    """A registry's metrics, and their samples after a scrape."""

    def __init__(self) -> None:
        self.time = Time(0.0)
        types: dict[str, Sequence[str]] = {BIKES: ("ridden", "parked"), CARS: ("driven",)}
        self.metrics = RouterMetrics(
            clock=self.time.clock, group="g", consumer="c", streams=(BIKES, CARS), types=types
        )
        self.registry = new_registry("1.2.3", self.metrics)

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = generate_latest(self.registry).decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((f"event_router_{name}", frozenset(labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self.samples() if name.startswith("event_router_")}


def delivery(number: int = 0, label: str = "ridden", letter: Any = None) -> Delivery:
    found = Delivery(entry(number), "bikes", (BIKES, entry_id(number)))
    found.label, found.letter = label, letter
    return found


LETTER = DeadLetter("invalid", "no", 1, "c", "t")


class TestCounters:
    def test_processed_events_are_counted_at_commit_without_dead_letters(self) -> None:
        scraped = Scraped()
        scraped.metrics.committed([delivery(1), delivery(2), delivery(3, letter=LETTER)], 0.004)
        assert scraped.value("events_processed_total", **TYPE) == 2
        assert scraped.value("commit_batch_events_count") == 1
        assert scraped.value("commit_batch_events_sum") == 3
        assert scraped.value("commit_duration_seconds_bucket", le="0.005") == 1

    def test_each_report_has_its_counter(self) -> None:
        scraped, one = Scraped(), delivery()
        scraped.metrics.failed(one, "no", 1.0)
        scraped.metrics.retried(one)
        scraped.metrics.duplicate(one)
        scraped.metrics.conflict(one)
        scraped.metrics.dead_lettered(one, "poison", "no")
        scraped.metrics.claimed(BIKES, 7)
        scraped.metrics.trimmed(BIKES, ["1-0", "2-0"])
        scraped.metrics.unread_trimmed(BIKES, 3)
        assert scraped.value("events_failed_total", **TYPE) == 1
        assert scraped.value("events_retried_total", **TYPE) == 1
        assert scraped.value("events_duplicate_total", stream=BIKES) == 1
        assert scraped.value("commit_conflicts_total", stream=BIKES) == 1
        assert scraped.value("events_dead_lettered_total", stream=BIKES, reason="poison") == 1
        assert scraped.value("entries_claimed_total", stream=BIKES) == 7
        assert scraped.value("entries_trimmed_total", stream=BIKES) == 5

    def test_every_series_stands_at_nought_from_the_start(self) -> None:
        scraped = Scraped()
        for name in ("events_processed_total", "events_failed_total", "events_retried_total"):
            assert scraped.value(name, stream=CARS, event_type="driven") == 0
        for reason in REASONS:
            assert scraped.value("events_dead_lettered_total", stream=BIKES, reason=reason) == 0


class TestHistograms:
    def test_durations_fall_into_their_buckets(self) -> None:
        scraped = Scraped()
        for seconds in (0.0001, 0.3, 99):
            scraped.metrics.handled(delivery(), seconds)
        bucket = "processing_duration_seconds_bucket"
        assert scraped.value(bucket, le="0.0001", **TYPE) == 1
        assert scraped.value(bucket, le="0.25", **TYPE) == 1
        assert scraped.value(bucket, le="0.5", **TYPE) == 2
        assert scraped.value(bucket, le="+Inf", **TYPE) == 3
        assert scraped.value("processing_duration_seconds_count", **TYPE) == 3
        assert scraped.value("processing_duration_seconds_sum", **TYPE) == pytest.approx(99.3001)

    def test_age_is_by_the_clock_of_redis_and_never_negative(self) -> None:
        scraped = Scraped()
        scraped.metrics.clock_offset_ms = 2_000
        scraped.metrics.committed([delivery(0)], 0.1)
        assert scraped.value("event_age_seconds_sum", stream=BIKES) == 2.0
        scraped.metrics.clock_offset_ms = -5_000
        scraped.metrics.committed([delivery(0)], 0.1)
        assert scraped.value("event_age_seconds_sum", stream=BIKES) == 2.0
        assert scraped.value("event_age_seconds_count", stream=BIKES) == 2
        assert scraped.time.clock.wall_ms() == FIRST_MS


class TestGauges:
    def test_figures_of_the_group(self) -> None:
        scraped = Scraped()
        scraped.metrics.groups[BIKES] = GroupFigures(5, 1.5, 7, 2)
        assert scraped.value("pending_messages", **GROUP) == 7
        assert scraped.value("consumer_lag", consumer="c", **GROUP) == 5
        assert scraped.value("lag_seconds", **GROUP) == 1.5
        assert scraped.value("dead_letters", stream=BIKES) == 2

    def test_unknown_is_unknown_and_never_nought(self) -> None:
        scraped = Scraped()
        scraped.metrics.groups[BIKES] = GroupFigures(None, None, 7, 2)
        assert not {name for name in scraped.names() if "lag" in name}
        assert not {name for name in scraped.names() if "stream_" in name or "consumer" in name}

    def test_figures_of_the_stream_and_of_who_holds_its_entries(self) -> None:
        scraped = Scraped()
        scraped.metrics.groups[BIKES] = GroupFigures(
            5, 1.5, 7, 2, length=40, added=90, consumers=3, pending_of={"c": 4, "gone": 3}
        )
        assert scraped.value("stream_length", stream=BIKES) == 40
        assert scraped.value("stream_entries_added_total", stream=BIKES) == 90
        assert scraped.value("consumers", **GROUP) == 3
        assert scraped.value("consumer_pending_messages", consumer="gone", **GROUP) == 3
        scraped.metrics.groups[BIKES] = GroupFigures(5, 1.5, 7, 2, pending_of={"c": 4})
        assert scraped.value("consumer_pending_messages", consumer="gone", **GROUP) is None

    def test_what_changes_with_an_outage(self) -> None:
        scraped = Scraped()
        assert scraped.value("redis_connected", role="streams") == 1
        scraped.metrics.outage_began("read", "no")
        assert scraped.value("redis_connected", role="streams") == 0
        scraped.metrics.outage_ended(1)
        assert scraped.value("redis_connected", role="streams") == 1
        scraped.metrics.breaker_opened("bikes", "no")
        assert scraped.value("circuit_open", domain="bikes") == 1
        scraped.metrics.breaker_closed("bikes", 1)
        assert scraped.value("circuit_open", domain="bikes") == 0

    def test_in_flight_is_asked_when_scraped(self) -> None:
        scraped = Scraped()
        scraped.metrics.in_flight = lambda: 42
        assert scraped.value("in_flight") == 42

    def test_the_version(self) -> None:
        ((_, labels),) = [key for key in Scraped().samples() if key[0] == "event_router_build_info"]
        assert dict(labels)["version"] == "1.2.3"


class TestExposition:
    def test_labels_are_bounded_whatever_arrives(self) -> None:
        scraped = Scraped()
        before = len(scraped.samples())
        for number in range(500):
            bad = delivery(number, label="other", letter=LETTER)
            scraped.metrics.handled(bad, 0.1)
            scraped.metrics.failed(bad, f"error {number}", None)
            scraped.metrics.committed([bad], 0.1)
            scraped.metrics.dead_lettered(bad, REASONS[number % len(REASONS)], f"error {number}")
        assert len(scraped.samples()) < before + 40

    def test_openmetrics_is_what_its_own_parser_takes(self) -> None:
        scraped = Scraped()
        scraped.metrics.committed([delivery(1)], 0.004)
        scraped.metrics.groups[BIKES] = GroupFigures(5, 1.5, 7, 2)
        text = generate_openmetrics(scraped.registry).decode()  # type: ignore[no-untyped-call]  # the library's
        names = {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]  # as above
        assert {"event_router_events_processed", "event_router_build"} <= names

    def test_every_name_of_the_design_is_there(self) -> None:
        scraped = Scraped()
        scraped.metrics.groups[BIKES] = GroupFigures(5, 1.5, 7, 2)
        scraped.metrics.breaker_closed("bikes", 1)
        wanted = """events_processed_total events_failed_total processing_duration_seconds_count
            pending_messages consumer_lag lag_seconds event_age_seconds_count commit_duration_seconds_count
            commit_batch_events_count commit_conflicts_total events_retried_total
            events_dead_lettered_total events_duplicate_total entries_claimed_total entries_trimmed_total
            dead_letters in_flight redis_connected circuit_open build_info"""
        assert {f"event_router_{name}" for name in wanted.split()} <= scraped.names()
