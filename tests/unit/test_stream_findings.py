"""What `doctor` finds in the figures of a stream."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from event_router.redis_io.lag import StreamStatus
from event_router.redis_io.stream_findings import examine_stream
from event_router.redis_io.stream_health import ConsumerHealth, OtherGroup, Patience, StreamHealth

PATIENCE = Patience(dead_ms=180_000, due_ms=85_000, silent_ms=15_000, renewed_ms=60_000)
ALIVE = ConsumerHealth("consumer-a", 0, 100)
STATUS = StreamStatus(
    stream="events:auth",
    group="event-router-group",
    length=10_000,
    lag=0,
    lag_seconds=0.0,
    pending=0,
    consumers=1,
    dead_letters=0,
    exists=True,
    last_id="1-1",
    trimmed_unread=0,
    server_ms=0,
    lag_is_wrong=False,
    added=50_000,
)
GOOD = StreamHealth(STATUS, (ALIVE,), (), None)


def found(health: StreamHealth) -> list[tuple[str, str]]:
    return [(finding.severity, finding.check) for finding in examine_stream(health, patience=PATIENCE)]


def with_status(**changes: Any) -> StreamHealth:
    return dataclasses.replace(GOOD, status=dataclasses.replace(STATUS, **changes))


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (GOOD, [("ok", "group")]),
        (with_status(lag=5, lag_seconds=3.0), [("ok", "group")]),
        (with_status(exists=False, length=0), [("note", "group")]),
        (with_status(exists=False), [("error", "group")]),
        (with_status(lag_seconds=86.0, pending=1), [("warning", "group")]),
        (with_status(lag_is_wrong=True), [("ok", "group"), ("note", "group")]),
        (with_status(dead_letters=3), [("warning", "dead letters")]),
        (with_status(trimmed_unread=7), [("error", "trimming")]),
        (with_status(lag=8_500, lag_seconds=3.0), [("warning", "trimming")]),
        (with_status(lag=8_500, lag_seconds=3.0, added=10_000), [("ok", "group")]),
        (with_status(lag=None, lag_seconds=None), [("ok", "group")]),
        (dataclasses.replace(GOOD, stale=("1-1", 90_000)), [("warning", "group")]),
    ],
)
def test_each_trouble_has_its_finding(health: StreamHealth, expected: list[tuple[str, str]]) -> None:
    assert found(health) == expected


def test_entries_that_wait_for_dead_consumers_only_are_an_error() -> None:
    dead = ConsumerHealth("consumer-b", 0, 180_000)
    waiting = dataclasses.replace(with_status(lag=5, lag_seconds=1.0), consumers=(dead,))
    assert found(waiting) == [("error", "group"), ("note", "dead consumer")]
    assert found(dataclasses.replace(waiting, consumers=())) == [("error", "group")]


@pytest.mark.parametrize(
    ("consumer", "warned"),
    [
        (ConsumerHealth("consumer-a", 0, 14_000), False),
        (ConsumerHealth("consumer-a", 0, 15_000), True),
        (ConsumerHealth("consumer-a", 3, 40_000), False),  # all its places are taken by slow handlers
        (ConsumerHealth("consumer-a", 3, 60_000), True),
    ],
)
def test_entries_that_no_router_has_asked_for_of_late_are_a_warning(
    consumer: ConsumerHealth, warned: bool
) -> None:
    health = dataclasses.replace(with_status(lag=5, lag_seconds=20.0), consumers=(consumer,))
    assert found(health) == [("warning", "group") if warned else ("ok", "group")]
    [finding, *_] = examine_stream(health, patience=PATIENCE)
    assert ("no router reads events:auth" in finding.what) == warned
    paused = examine_stream(health, patience=PATIENCE, paused=True)
    assert [one.severity for one in paused] == ["ok"]
    read = dataclasses.replace(health, status=dataclasses.replace(health.status, lag=0))
    assert found(read) == [("ok", "group")]


def test_the_first_dead_consumers_that_hold_entries_are_named() -> None:
    dead = tuple(ConsumerHealth(f"consumer-{n}", 2, 200_000) for n in range(8))
    health = dataclasses.replace(with_status(pending=16), consumers=(ALIVE, *dead), stale=("1-1", 90_000))
    named = [finding for finding in examine_stream(health, patience=PATIENCE) if "consumer-" in finding.what]
    assert len(named) == 5
    assert "3 more" in examine_stream(health, patience=PATIENCE)[-1].what


@pytest.mark.parametrize(
    ("other", "forgotten"),
    [
        (OtherGroup("audit", 10, 0, None), True),
        (OtherGroup("audit", None, 0, 7_200_000), True),
        (OtherGroup("audit", 0, 1, 7_200_000), True),
        (OtherGroup("audit", 10, 0, 1_000), False),
        (OtherGroup("audit", 0, 0, None), False),
    ],
)
def test_a_group_that_nobody_uses_and_that_holds_up_retention_is_named(
    other: OtherGroup, forgotten: bool
) -> None:
    findings = examine_stream(dataclasses.replace(GOOD, others=(other,)), patience=PATIENCE)
    assert [finding.check for finding in findings] == (["retention"] if forgotten else ["group"])
    assert not forgotten or "XGROUP DESTROY events:auth audit" in findings[0].remedy
