"""`event-router explain`: every place an entry can be in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.environment.servers import Server
from tests.integration.cli_calls import Called, call, refusal
from tests.integration.operated import FIRST_MS, GROUP, STREAM, deliver, fill

Explain = Callable[..., dict[str, Any]]


@pytest.fixture
def explained(server: Server) -> Callable[..., Called]:
    """Calls `explain` on the server, with the options given."""
    return lambda *arguments: call("explain", *arguments, env={"REDIS_STREAMS_URL": server.url})


@pytest.fixture
def explain(explained: Callable[..., Called]) -> Explain:
    """What `explain` says of an entry of the stream; the exit code is 0 unless told otherwise."""

    def ask(entry_id: str, code: int = 0) -> dict[str, Any]:
        called = explained(STREAM, entry_id, "-o", "json")
        assert called.code == code, called
        [row] = called.rows
        assert (row["stream"], row["id"]) == (STREAM, entry_id)
        return dict(row)

    return ask


def test_undelivered(explain: Explain, redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 5)
    deliver(redis_client, 2)
    row = explain(ids[4])
    assert row["state"] == "undelivered"
    assert (row["entries_before"], row["entries_before_exact"]) == (2, True)
    assert row["type"] == "auth:login"
    assert row["key"] == "7"
    assert row["event_time"] == "2026-01-01T00:00:04.000Z"
    assert row["fields"] == [["type", "login"], ["user_id", "7"]]
    assert explain(ids[2])["entries_before"] == 0
    redis_client.xgroup_destroy(STREAM, GROUP)
    assert "the group does not exist" in explain(ids[4])["explanation"]


def test_pending(explain: Explain, explained: Callable[..., Called], redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 2)
    deliver(redis_client, 1, settle=False)
    words: list[str | int] = [
        STREAM,
        GROUP,
        "consumer-a",
        0,
        ids[0],
        "IDLE",
        40_000,
        "RETRYCOUNT",
        2,
        "JUSTID",
    ]
    redis_client.execute_command("XCLAIM", *words)
    row = explain(ids[0])
    assert (row["state"], row["consumer"], row["attempts"]) == ("pending", "consumer-a", 2)
    assert row["max_deliveries"] == 5
    assert 40_000 <= row["idle_ms"] < 60_000
    assert row["tried_again_within_ms"] == 60_000 - row["idle_ms"]
    assert row["consumer_idle_ms"] < 20_000
    shown = explained(STREAM, ids[0]).out
    assert "consumer-a has it, started 2 of 5 times" in shown
    assert "field user_id" in shown
    words[6] = 70_000
    redis_client.execute_command("XCLAIM", *words)
    assert explain(ids[0])["tried_again_within_ms"] == 0


def test_settled_and_trimmed_since(explain: Explain, redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 3)
    deliver(redis_client, 2)
    row = explain(ids[0])
    assert (row["state"], row["in_stream"]) == ("settled", True)
    redis_client.xtrim(STREAM, minid=ids[1], approximate=False)
    row = explain(ids[0])
    assert (row["state"], row["in_stream"]) == ("settled", False)
    assert "fields" not in row


def test_dead_letter(explain: Explain, explained: Callable[..., Called], redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 2)
    deliver(redis_client, 2)
    for number, origin in enumerate((ids[1], ids[0])):
        own = {"dlq_stream": STREAM, "dlq_id": origin, "dlq_reason": "poison", "dlq_error": "no \x1b[31m"}
        own |= {"dlq_deliveries": "5", "dlq_consumer": "a", "dlq_time": "2026-01-01T00:00:09.000Z"}
        letter: Any = {"type": "login", **own}
        redis_client.xadd(f"dlq:{STREAM}", letter, id=f"{FIRST_MS + 9000}-{number}")
    row = explain(ids[0])
    assert row["state"] == "dead-lettered"
    assert row["dead_letter"]["id"] == f"{FIRST_MS + 9000}-1"
    assert row["dead_letter"]["reason"] == "poison"
    shown = explained(STREAM, ids[0]).out
    assert "\x1b" not in shown
    assert ["in", "stream", "yes"] in [line.split() for line in shown.splitlines()]
    assert "dead letter origin id " in shown
    assert f"`dlq show {FIRST_MS + 9000}-1` has it" in shown


def test_the_id_of_a_letter_leads_to_its_entry(
    explained: Callable[..., Called], redis_client: redis.Redis
) -> None:
    ids = fill(redis_client, 2)
    deliver(redis_client, 2)
    redis_client.xtrim(STREAM, maxlen=0)  # so that an entry of any id may have been there
    own: Any = {"dlq_stream": STREAM, "dlq_id": ids[0], "dlq_reason": "poison", "dlq_error": "no"}
    own |= {"dlq_deliveries": "5", "dlq_consumer": "a", "dlq_time": "2026-01-01T00:00:09.000Z"}
    letter_id = f"{FIRST_MS + 9000}-0"
    redis_client.xadd(f"dlq:{STREAM}", {"type": "login", **own}, id=letter_id)
    for words in ([letter_id], [STREAM, letter_id], [f"dlq:{STREAM}", letter_id]):
        called = explained(*words, "-o", "json")
        assert called.code == 0
        [row] = called.rows
        assert (row["stream"], row["id"], row["state"]) == (STREAM, ids[0], "dead-lettered")
        assert called.err == f"{letter_id} is the id of a dead letter; its entry is {ids[0]}\n"


def test_trimmed(explain: Explain, redis_client: redis.Redis) -> None:
    ids = fill(redis_client, 4)
    deliver(redis_client, 1, settle=False)
    redis_client.xtrim(STREAM, minid=ids[3], approximate=False)
    row = explain(ids[0])
    assert row["state"] == "trimmed"
    assert "while consumer-a had it" in row["explanation"]
    row = explain(ids[1])
    assert row["state"] == "trimmed"
    assert "before it was delivered" in row["explanation"]


def test_what_was_never_there(explain: Explain, redis_client: redis.Redis) -> None:
    assert "never had an entry" in explain("5-5", code=1)["explanation"]
    ids = fill(redis_client, 3)
    deliver(redis_client, 2)
    assert explain(f"{FIRST_MS + 1}-0", code=1)["state"] == "never existed"
    assert "no entry of this id" in explain(f"{FIRST_MS + 60_000}-0", code=1)["explanation"]
    before_all = explain("5-5", code=1)
    assert before_all["state"] == "never existed"
    assert "as many entries as were ever added" in before_all["explanation"]
    redis_client.xdel(STREAM, ids[1])
    assert explain(ids[1])["state"] == "deleted"


def test_what_cannot_be_decoded_and_what_is_paused(
    explain: Explain, redis_client: redis.Redis, server: Server
) -> None:
    ids = fill(redis_client, 1, user_id="")
    call("pause", STREAM, "--reason", "mending", env={"REDIS_STREAMS_URL": server.url})
    row = explain(ids[0])
    assert row["type"] == "login"
    assert row["problem"] == "invalid: field 'user_id' is an empty identifier"
    assert row["paused"] == "mending"


def test_without_the_handlers(redis_client: redis.Redis, server: Server) -> None:
    ids = fill(redis_client, 1)
    env = {"REDIS_STREAMS_URL": server.url, "HANDLERS": "nowhere:Handler"}
    [row] = call("explain", STREAM, ids[0], "-o", "json", env=env).rows
    assert row["type"] == "login"
    assert "'nowhere'" in row["problem"]


@pytest.mark.parametrize("entry_id", ["x", "1-", "-1", f"{2**64}-0", "1-2-3", "", "٣-0"])
def test_wrong_ids(explained: Callable[..., Called], entry_id: str) -> None:
    assert "no id of an entry" in refusal(explained(STREAM, "--", entry_id), 2)


def test_a_key_that_is_no_stream(explained: Callable[..., Called], redis_client: redis.Redis) -> None:
    redis_client.set(STREAM, "x")
    assert "WRONGTYPE" in refusal(explained(STREAM, "5-5"), 1)


def test_an_id_alone_is_looked_for_in_the_served_streams(
    explained: Callable[..., Called], redis_client: redis.Redis
) -> None:
    ids = fill(redis_client, 2)
    for stream in ("events:chat", "events:unserved"):
        redis_client.xadd(stream, {"type": "feedback"}, id=ids[1])
    redis_client.xadd("events:scan", {"type": "scan_start"})  # may have had it
    [row] = explained(ids[0], "-o", "json").rows
    assert (row["stream"], row["state"]) == (STREAM, "undelivered")
    assert [row["stream"] for row in explained(ids[1], "-o", "json").rows] == [STREAM, "events:chat"]
    redis_client.xtrim(STREAM, maxlen=0)
    rows = explained(ids[0], "-o", "json").rows
    assert (rows[0]["stream"], rows[0]["state"]) == (STREAM, "trimmed")
    redis_client.flushall()
    never = refusal(explained(ids[0]), 1)
    assert f"there never was an entry {ids[0]} in {STREAM}, events:chat" in never
    assert "is no id of an entry" in refusal(explained(STREAM), 2)
