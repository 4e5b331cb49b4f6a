"""Hostile input: a dead letter with a precise reason, every byte kept, neighbours and the router unharmed."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from tests.acceptance.hostile_entries import HOSTILE, flat
from tests.conftest import RouterFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled, entries
from tests.environment.waiting import eventually

AUTH = "events:auth"
DLQ = "dlq:events:auth"
LONGEST_ERROR = 5_000
MOST_FIELDS_OF_A_LETTER = 3_900


def add(client: redis.Redis, words: list[bytes]) -> bytes:
    """XADD of bytes as they are; the entry's id."""
    answer: bytes = client.execute_command("XADD", AUTH, "*", *words)
    return answer


def add_neighbour(client: redis.Redis) -> None:
    """XADD of a good login."""
    add(client, flat("type", "login", "user_id", "neighbour", "timestamp", "2026-10-01T08:00:00Z"))


def words_of(fields: dict[bytes, bytes]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """A dead letter's entry as names and values in turn, unpacked if packed; and the router's fields."""
    own = {name: value for name, value in fields.items() if name.startswith(b"dlq_") and name != b"dlq_raw"}
    if b"dlq_raw" in fields:
        return unpacked(fields[b"dlq_raw"]), own
    return [word for field in fields.items() if field[0] not in own for word in field], own


def unpacked(packed: bytes) -> list[bytes]:
    """The words of a msgpack array, each `str` or `bin` of less than 32 bytes (all that the test packs)."""
    assert packed[0] in (0xDC, 0xDD)
    head = 3 if packed[0] == 0xDC else 5
    words, at = [], head
    while at < len(packed):
        width = 2 if packed[at] == 0xC4 else 1
        length = packed[at + width - 1] & 31
        words.append(packed[at + width : at + width + length])
        at += width + length
    assert len(words) == int.from_bytes(packed[1:head])
    return words


def complaints(name: str, fields: dict[bytes, bytes]) -> list[str]:
    """What is wrong with a hostile entry's dead letter."""
    bad = HOSTILE[name]
    words, own = words_of(fields)
    reason, error = own[b"dlq_reason"], own[b"dlq_error"]
    found = []
    if reason not in bad.reasons or bad.mentions not in error:
        found.append(f"{name}: {reason!r} {error[:200]!r}, not {bad.reasons} with {bad.mentions!r}")
    if len(error) > LONGEST_ERROR:
        found.append(f"{name}: an error of {len(error)} bytes")
    if words != bad.words:
        found.append(f"{name}: its bytes are not kept")
    if (b"dlq_raw" in fields) != (len(bad.words) > 2 * MOST_FIELDS_OF_A_LETTER):
        found.append(f"{name}: packed or not, with {len(bad.words) // 2} fields")
    return found


def test_all_bad_entries_become_dead_letters_that_keep_every_byte(
    server: Server, redis_bytes: redis.Redis, new_router: RouterFactory
) -> None:
    router = new_router(server.url).start()
    sent: dict[bytes, str] = {}
    for name, bad in HOSTILE.items():
        add_neighbour(redis_bytes)
        sent[add(redis_bytes, bad.words)] = name
    add_neighbour(redis_bytes)
    await_settled(redis_bytes, [AUTH], within=20)

    letters = [(sent[fields[b"dlq_id"]], fields) for _, fields in entries(redis_bytes, DLQ)]
    assert [complaint for name, fields in letters for complaint in complaints(name, fields)] == []
    assert sorted(name for name, _ in letters) == sorted(HOSTILE), "each once"
    assert redis_bytes.hget("state:user:neighbour", "login_count") == b"%d" % (len(HOSTILE) + 1)
    assert redis_bytes.keys("state:user:*") == [b"state:user:neighbour"]
    assert router.readyz()[0] == 200
    assert router.metric("events_failed_total") == 0, "what cannot be read is no failed attempt"
    assert router.metric("circuit_open") == 0


@pytest.mark.once
def test_metric_series_and_log_lines_stay_bounded_whatever_types_come(
    server: Server, redis_bytes: redis.Redis, new_router: RouterFactory
) -> None:
    router = new_router(server.url).start()
    add_neighbour(redis_bytes)
    add(redis_bytes, flat("type", "hostile"))
    await_settled(redis_bytes, [AUTH], within=5)
    eventually(lambda: router.metric("events_dead_lettered_total") == 1, within=5)
    before = router.metrics().keys()
    for n in range(300):
        add(redis_bytes, flat("type", f'hostile{n}"\n}}', "user_id", f"u{n}"))
    await_settled(redis_bytes, [AUTH], within=10)
    eventually(lambda: router.metric("events_dead_lettered_total") == 301, within=5)
    after = router.metrics().keys()
    assert len(after - before) <= 5, after - before
    assert not [sample for sample in after if "hostile" in sample]
    errors = [line for line in router.log() if line["level"] == "error"]
    assert 1 <= len(errors) < 100, "one dead letter is one line, many are limited"


@pytest.mark.once
def test_a_time_of_exactly_a_day_ahead_is_the_last_accepted(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    now = time.time_ns() // 1_000_000
    day_ahead: dict[Any, Any] = {"type": "login", "user_id": "u", "timestamp": now + 86_400_000}
    redis_client.xadd(AUTH, day_ahead, id=f"{now}-0")
    late = redis_client.xadd(AUTH, day_ahead | {"timestamp": now + 86_400_001}, id=f"{now}-1")
    new_router(server.url).start()
    await_settled(redis_client, [AUTH], within=5)
    assert [letter["dlq_id"] for _, letter in entries(redis_client, DLQ)] == [late]
    assert redis_client.hget("state:user:u", "login_count") == "1"
