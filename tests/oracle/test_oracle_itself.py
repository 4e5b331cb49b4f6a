"""The oracle's own tests: what it expects was worked out by hand here, and it notices every difference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
import redis

from tests.environment.streams import entries
from tests.oracle.comparing import PINNED, differences
from tests.oracle.fold import Expected, fold, streak
from tests.oracle.reading import Accepted, Refused, read
from tests.oracle.workload import HOT_USER, Planned, Workload, publish

NOW_MS = 1_793_534_400_000  # 2026-11-01T12:00:00Z


def entry(stream: str, at: str = f"{NOW_MS}-0", /, **fields: str) -> Accepted:
    return Accepted(f"events:{stream}", at, {name.encode(): value.encode() for name, value in fields.items()})


@pytest.mark.parametrize("written", [
    {"type": "login", "user_id": "7", "timestamp": "2026-11-01T10:00:00.250Z"},
    {"type": "auth:login", "user_id": "7", "timestamp": "2026-11-01T11:30:00.250+01:30"},
    {"type": "login", "user_id": "7", "timestamp": "2026-11-01T10:00:00.250"},
    {"type": "login", "user_id": "7", "timestamp": "1793527200250"},
    {"data": '{"type": "login", "user_id": 7, "timestamp": 1793527200250}'},
    {"type": "login", "data": '{"type": "logout", "user_id": 7, "timestamp": "2026-11-01T10:00:00.250Z"}'},
])  # fmt: skip
def test_one_event_reads_the_same_however_it_is_written(written: dict[str, str]) -> None:
    event = read(entry("auth", **written))
    assert (event.type, event.data["user_id"], event.time) == ("login", "7", "2026-11-01T10:00:00.250Z")


def test_what_repeats_its_producers_id_does_not_count() -> None:
    flat = {"type": "login", "user_id": "7", "id": "a", "timestamp": "1793527200250"}
    said = {"data": '{"type": "login", "user_id": 7, "id": "a", "timestamp": 1793527200250}'}
    other = {"type": "logout", "user_id": "7", "id": "a"}
    found = fold(
        [entry("auth", **flat), entry("auth", **said), entry("scan", **other), entry("auth", **flat)]
    )
    assert found.hashes["state:user:7"]["login_count"] == "1"


def test_without_a_timestamp_the_entry_id_tells_the_time() -> None:
    assert read(entry("auth", type="login", user_id="7")).time == "2026-11-01T12:00:00.000Z"


def test_a_day_ahead_is_the_latest_time_accepted() -> None:
    assert (
        read(entry("auth", type="login", user_id="7", timestamp="2026-11-02T12:00:00Z")).day == "2026-11-02"
    )
    with pytest.raises(Refused):
        read(entry("auth", type="login", user_id="7", timestamp="2026-11-02T12:00:00.001Z"))


def test_a_streak_is_the_run_that_ends_at_the_newest_day() -> None:
    days = {date(2026, 2, 26), date(2026, 2, 27), date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 3)}
    assert streak(days) == 1
    assert streak(days - {date(2026, 3, 3)}) == 4


def test_the_greatest_of_terminal_seq_and_entry_id_wins_and_writes_every_field() -> None:
    step = {
        "type": "progress",
        "job_id": "j",
        "stage": "s",
        "user_id": "u",
        "timestamp": "2026-11-01T10:00:00Z",
    }
    late = entry("scan", f"{NOW_MS}-9", **step, seq="9", status="running", message="late")
    tie = entry("scan", f"{NOW_MS}-2", **step, seq="3", status="failed", progress="30")
    done = [
        entry("scan", f"{NOW_MS}-1", **step, seq="3", status="done", result="r"),
        entry("scan", f"{NOW_MS}-5", type="scan_complete", user_id="u", job_id="j", result="end"),
    ]
    expected = fold([late, *done, tie])
    assert expected.hashes["scan:state:j"] == {
        "stage": "s", "status": "failed", "progress": "30", "seq": "3", "message": "", "result": "",
        "updated_at": "2026-11-01T10:00:00.000Z",
    }  # fmt: skip
    assert expected.hashes["stats:daily:2026-11-01"] == {"total_scans": "1"}


def test_an_article_counts_once_a_day_and_keeps_the_latest() -> None:
    page = {"type": "article_fetched", "article_id": "a"}
    expected = fold([
        entry("info", f"{NOW_MS}-1", **page, title="second", timestamp="2026-11-01T09:00:00Z"),
        entry("info", f"{NOW_MS}-0", **page, title="first", timestamp="2026-11-01T09:00:00Z"),
        entry("info", f"{NOW_MS}-2", **page, title="old", timestamp="2026-10-31T09:00:00Z"),
    ])  # fmt: skip
    assert expected.hashes["state:article:a"] == {"title": "second"}
    assert expected.hashes["stats:daily:2026-11-01"] == {"articles_fetched": "1"}
    assert expected.hashes["stats:daily:2026-10-31"] == {"articles_fetched": "1"}


def test_of_entries_that_repeat_an_id_either_may_be_the_one_that_counted(redis_bytes: redis.Redis) -> None:
    page = {"type": "article_fetched", "article_id": "a", "timestamp": "2026-11-01T09:00:00Z"}
    step = {"type": "progress", "job_id": "j", "seq": "1", "status": "", "timestamp": "2026-11-01T09:00:00Z"}
    expected = fold([
        entry("info", f"{NOW_MS}-0", **page, title="given", id="x"),
        entry("info", f"{NOW_MS}-1", **page, title="between"),
        entry("info", f"{NOW_MS}-2", **page, title="given", id="x"),
        entry("info", f"{NOW_MS}-3", **(page | {"article_id": "b"}), title="last"),
        entry("scan", f"{NOW_MS}-4", **step, stage="given", id="x"),
        entry("scan", f"{NOW_MS}-5", **step, stage="between"),
        entry("scan", f"{NOW_MS}-6", **step, stage="given", id="x"),
    ])  # fmt: skip
    assert expected.hashes["state:article:a"] == {"title": "between"}
    assert expected.others["state:article:a"] == [{"title": "given"}]
    assert [other["stage"] for other in expected.others["scan:state:j"]] == ["given"]
    assert "state:article:b" not in expected.others
    assert expected.hashes["stats:daily:2026-11-01"] == {"articles_fetched": "2"}
    for key, of_key in expected.hashes.items():
        redis_bytes.hset(key, items=[word for field in of_key.items() for word in field])
    redis_bytes.expire("scan:state:j", 3600)
    for title, differs in (("between", False), ("given", False), ("neither", True)):
        redis_bytes.hset("state:article:a", "title", title)
        assert any(differences(expected, redis_bytes)) is differs, title


def accepted(planned: Sequence[Planned]) -> list[Accepted]:
    """As if published, all at one moment: ids of now would make planted future times valid."""
    return [Accepted(one.stream, f"{NOW_MS}-{n}", one.fields) for n, one in enumerate(planned)]


def test_the_workload_is_what_it_promises() -> None:
    planned = Workload(seed=1, count=4000, now_ms=NOW_MS).entries()
    assert len(planned) == 4000
    assert planned == Workload(seed=1, count=4000, now_ms=NOW_MS).entries()
    expected = fold(accepted(planned))
    assert expected.dead == {
        (one.stream, f"{NOW_MS}-{n}"): one.reason for n, one in enumerate(planned) if one.reason
    }
    assert 150 <= int(expected.hashes[f"state:user:{HOT_USER}"]["login_count"]) <= 260
    assert expected.notified
    assert expected.notifiable.keys() - expected.notified, "some runs are not the last"
    assert len([key for key in expected.hashes if key.startswith("stats:daily:")]) >= 40
    for pattern, names in PINNED.items():
        prefix = pattern.removesuffix("*")
        of_kind = [of_key for key, of_key in expected.hashes.items() if key.startswith(prefix)]
        assert {name for of_key in of_kind for name in of_key} == set(names), pattern


def test_a_published_workload_gets_the_ids_the_server_gave(redis_bytes: redis.Redis) -> None:
    planned = Workload(seed=2, count=500, now_ms=NOW_MS).entries()
    taken = publish(redis_bytes, planned)
    assert [(one.stream, one.fields) for one in taken] == [(one.stream, one.fields) for one in planned]
    stored = {entry_id.decode(): fields for entry_id, fields in entries(redis_bytes, "events:chat")}
    assert stored == {one.id: one.fields for one in taken if one.stream == "events:chat"}


@pytest.fixture
def held(redis_bytes: redis.Redis) -> Expected:
    """A server that holds just what the fold of a small workload says."""
    expected = fold(accepted(Workload(seed=3, count=1000, now_ms=NOW_MS).entries()))
    for key, of_key in expected.hashes.items():
        redis_bytes.hset(key, items=[word for field in of_key.items() for word in field])
        if "login_count" in of_key:
            redis_bytes.hset(key, "login_days", "some")
        if ":state:" in key:
            redis_bytes.expire(key, 3600)
    for (stream, entry_id), reason in expected.dead.items():
        own = {"stream": stream, "id": entry_id, "reason": reason}
        own |= {"error": "", "deliveries": "1", "consumer": "", "time": ""}
        letter: dict[Any, Any] = dict(expected.letters[stream, entry_id])
        redis_bytes.xadd(f"dlq:{stream}", letter | {f"dlq_{name}": value for name, value in own.items()})
    for user in expected.notified:
        redis_bytes.xadd(
            "events:notification", {"type": "login_streak", "user_id": user, "day": "2026-10-09"}
        )
    assert expected.notified
    return expected


def test_it_finds_no_difference_where_there_is_none(held: Expected, redis_bytes: redis.Redis) -> None:
    assert list(differences(held, redis_bytes)) == []


@pytest.mark.parametrize("damage", [
    lambda client: client.hincrby(f"state:user:{HOT_USER}", "login_count", 1),
    lambda client: client.hdel(f"state:user:{HOT_USER}", "last_login"),
    lambda client: client.hset(f"state:user:{HOT_USER}", "last_logout", ""),
    lambda client: client.hset("state:user:never", "login_count", 1),
    lambda client: client.delete("stats:daily:2026-10-20"),
    lambda client: client.persist(next(client.scan_iter("scan:state:*"))),
    lambda client: client.xdel("dlq:events:auth", client.xrange("dlq:events:auth", count=1)[0][0]),
    lambda client: client.xadd("dlq:events:auth", client.xrange("dlq:events:auth", count=1)[0][1]),
    lambda client: client.xadd("events:notification", {"type": "login_streak", "user_id": "never"}),
    lambda client: client.xtrim("events:notification", maxlen=0),
    lambda client: client.xadd("events:notification", client.xrange("events:notification", count=1)[0][1]),
])  # fmt: skip
def test_it_finds_every_damage(held: Expected, redis_bytes: redis.Redis, damage) -> None:  # type: ignore[no-untyped-def]
    damage(redis_bytes)
    assert list(differences(held, redis_bytes))
