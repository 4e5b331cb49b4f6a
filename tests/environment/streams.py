"""Looking at streams and their group from outside, with any redis-py client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import redis

from tests.environment.waiting import eventually

GROUP = "event-router-group"
STREAMS = ("events:auth", "events:chat", "events:scan", "events:info")


def entries(
    client: redis.Redis, stream: str | bytes, first: str = "-", last: str = "+"
) -> list[tuple[Any, Any]]:
    """XRANGE: id and fields of each entry, in the client's kind of answer."""
    return cast("list[tuple[Any, Any]]", client.xrange(stream, first, last))


def letters(client: redis.Redis, stream: str) -> dict[str, dict[str, str]]:
    """The dead letters of a stream by the id of the entry they were (a client that answers in text)."""
    return {fields["dlq_id"]: fields for _, fields in entries(client, f"dlq:{stream}")}


def group_state(client: redis.Redis, stream: str, group: str = GROUP) -> dict[str, Any]:
    """XINFO GROUPS of the one group; LookupError while it does not exist."""
    try:
        groups: list[dict[str, Any]] = client.xinfo_groups(stream)
    except redis.ResponseError:
        groups = []  # no such key
    for state in groups:
        if _text(state["name"]) == group:
            return state
    raise LookupError(f"no group {group} on {stream}")


def pending(client: redis.Redis, stream: str, consumer: str | None = None) -> list[dict[str, Any]]:
    """XPENDING: message_id, consumer, time_since_delivered, times_delivered of 10,000 entries at most."""
    found = client.xpending_range(stream, GROUP, min="-", max="+", count=10_000, consumername=consumer)
    return cast("list[dict[str, Any]]", found)


def held_by(client: redis.Redis, consumer: str, streams: Iterable[str] = STREAMS) -> int:
    """How many entries are pending for a consumer over all streams."""
    total = 0
    for stream in streams:
        summary: dict[str, Any] = client.xpending(stream, GROUP)
        total += sum(int(c["pending"]) for c in summary["consumers"] if _text(c["name"]) == consumer)
    return total


def unsettled(client: redis.Redis, streams: Iterable[str] = STREAMS, group: str = GROUP) -> dict[str, str]:
    """The streams with entries not delivered or not settled, and what is open there."""
    found = {}
    for stream in streams:
        info: dict[str, Any] = client.xinfo_stream(stream)
        state = group_state(client, stream, group)
        last, delivered = _text(info["last-generated-id"]), _text(state["last-delivered-id"])
        if state["pending"] or last != delivered:
            found[stream] = f"{state['pending']} pending, delivered up to {delivered} of {last}"
    return found


def await_settled(
    client: redis.Redis, streams: Iterable[str] = STREAMS, *, within: float, group: str = GROUP
) -> None:
    """Wait until everything that was published is delivered and acknowledged."""
    streams = tuple(streams)

    def still_open() -> dict[str, str]:
        return unsettled(client, streams, group)

    eventually(lambda: not still_open(), within=within, what=still_open, every=0.05)


def give_to(client: redis.Redis, stream: str, consumer: str, entry_ids: list[str]) -> None:
    """Hand pending entries to a consumer, long idle, so that it finds them due; raises no counter."""
    words: list[str | int] = [stream, GROUP, consumer, 0, *entry_ids, "IDLE", 60_000, "JUSTID"]
    given = client.execute_command("XCLAIM", *words)
    assert len(given) == len(entry_ids), f"{len(given)} of {len(entry_ids)} were pending"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
