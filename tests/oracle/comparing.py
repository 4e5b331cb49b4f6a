"""Compares what a server holds with what the fold expects, field by field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import redis

from tests.environment.streams import entries
from tests.oracle.fold import ARTICLE_FIELDS, STEP_FIELDS, Expected

# A key's pattern to every field of it that is pinned; other fields may stand beside them.
PINNED: dict[str, tuple[str, ...]] = {
    "state:user:*": ("last_login", "login_count", "login_streak", "last_login_date", "last_logout"),
    "stats:user:*": (
        "messages_sent",
        "message_count",
        "feedback_count",
        "feedback_score_total",
        "scan_count",
    ),
    "stats:daily:*": (
        "logins",
        "messages_sent",
        "total_messages",
        "feedback_count",
        "feedback_score_total",
        "total_scans",
        "articles_fetched",
    ),
    "chat:state:*": STEP_FIELDS,
    "scan:state:*": STEP_FIELDS,
    "state:article:*": ARTICLE_FIELDS,
}
LETTER_FIELDS = {
    "dlq_stream",
    "dlq_id",
    "dlq_reason",
    "dlq_error",
    "dlq_deliveries",
    "dlq_consumer",
    "dlq_time",
}
JOB_TTL_S = 3600
SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the fold says; None stands for absent."""

    key: str
    field: str
    expected: object
    got: object

    def __str__(self) -> str:
        return f"{self.key} {self.field}: expected {self.expected!r}, got {self.got!r}"


def assert_equal(expected: Expected, client: redis.Redis, *, context: str = "") -> None:
    """Fail with the first differences unless the server holds just what is expected.

    ``client`` answers in bytes.
    """
    found = list(islice(differences(expected, client), 1000))
    if found:
        shown = "\n".join(str(difference) for difference in found[:SHOWN])
        raise AssertionError(f"{context}\n{len(found)} differences (1000 at most are looked for):\n{shown}")


def differences(expected: Expected, client: redis.Redis) -> Iterator[Difference]:
    """All differences: states, dead letters, notifications."""
    yield from _states(expected, client)
    yield from _dead_letters(expected, client)
    yield from _notifications(expected, client)


def _states(expected: Expected, client: redis.Redis) -> Iterator[Difference]:
    for pattern, pinned in PINNED.items():
        prefix = pattern.removesuffix("*")
        present = {key.decode() for key in client.scan_iter(match=pattern, count=1000)}
        wanted = {key for key in expected.hashes if key.startswith(prefix)}
        for key in sorted(present - wanted):
            yield Difference(key, "(key)", None, client.type(key))
        keys = sorted(wanted)
        for key, got in zip(keys, _hashes(client, keys), strict=True):
            of_key = list(_of_key(key, expected.hashes[key], got, pinned))
            others = expected.others.get(key, [])
            if of_key and all(any(_of_key(key, other, got, pinned)) for other in others):
                yield from of_key
            if key.startswith("state:user:") and "login_count" in got and not got.get("login_days"):
                yield Difference(key, "login_days", "some days", got.get("login_days"))
        if ":state:" in pattern:
            yield from _lifetimes(client, [key for key in keys if key in present])


def _of_key(
    key: str, wanted: Mapping[str, str], got: Mapping[str, str], pinned: Sequence[str]
) -> Iterator[Difference]:
    for name in pinned:
        want, have = wanted.get(name), got.get(name)
        if want != have:
            yield Difference(key, name, want, have)


def _hashes(client: redis.Redis, keys: Sequence[str]) -> Iterator[dict[str, str]]:
    for start in range(0, len(keys), 500):
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + 500]:
            pipeline.hgetall(key)
        for answer in pipeline.execute(raise_on_error=False):
            yield (
                {_shown(name): _shown(value) for name, value in answer.items()}
                if isinstance(answer, dict)
                else {}
            )


def _lifetimes(client: redis.Redis, keys: Sequence[str]) -> Iterator[Difference]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.ttl(key)
    for key, ttl in zip(keys, pipeline.execute(), strict=True):
        if not 0 < ttl <= JOB_TTL_S:
            yield Difference(key, "TTL", f"1 to {JOB_TTL_S}", ttl)


def _shown(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _dead_letters(expected: Expected, client: redis.Redis) -> Iterator[Difference]:
    seen: Counter[tuple[str, str]] = Counter()
    for key in sorted(client.scan_iter(match="dlq:*", count=1000)):
        stream = key.decode().removeprefix("dlq:")
        for _, fields in entries(client, key):
            named = {
                _shown(name): _shown(value) for name, value in fields.items() if name.startswith(b"dlq_")
            }
            origin = (stream, named.get("dlq_id", ""))
            seen[origin] += 1
            want, have = expected.dead.get(origin), named.get("dlq_reason")
            if want != have:
                yield Difference(
                    f"dlq:{stream}", f"reason of {origin[1]}", want, f"{have}: {named.get('dlq_error')}"
                )
                continue
            if set(named) != LETTER_FIELDS or named["dlq_stream"] != stream:
                yield Difference(f"dlq:{stream}", f"dlq_ fields of {origin[1]}", sorted(LETTER_FIELDS), named)
            kept = {name: value for name, value in fields.items() if not name.startswith(b"dlq_")}
            if kept != expected.letters[origin]:
                yield Difference(f"dlq:{stream}", f"fields of {origin[1]}", expected.letters[origin], kept)
    for origin, reason in expected.dead.items():
        if seen[origin] != 1:
            yield Difference(f"dlq:{origin[0]}", f"letters of {origin[1]}", f"1 ({reason})", seen[origin])


def _notifications(expected: Expected, client: redis.Redis) -> Iterator[Difference]:
    sent: Counter[str] = Counter()
    of_day: Counter[tuple[str, str]] = Counter()
    for _, fields in entries(client, "events:notification"):
        values = {_shown(name): _shown(value) for name, value in fields.items()}
        values |= json.loads(values.get("data", "{}"))
        if values.get("type") == "login_streak":
            sent[str(values.get("user_id"))] += 1
            of_day[str(values.get("user_id")), str(values.get("day"))] += 1
    for (user, day), times in of_day.items():
        if times > 1:
            yield Difference("events:notification", f"login_streak of {user} on {day}", 1, times)
    for user in sorted(expected.notified | sent.keys()):
        least, most = int(user in expected.notified), expected.notifiable.get(user, 0)
        if not least <= sent[user] <= most:
            yield Difference(
                "events:notification", f"login_streak of {user}", f"{least} to {most}", sent[user]
            )
