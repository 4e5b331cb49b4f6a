"""What is to be found in streams: entries that nobody handles, and such that may soon be destroyed."""

from __future__ import annotations

from event_router.core.finding import Finding, error, note, ok, warning
from event_router.redis_client.script import Caller
from event_router.redis_io.lag import StreamStatus
from event_router.redis_io.stream_health import ConsumerHealth, OtherGroup, Patience, StreamHealth

LITTLE_HEADROOM = 0.2
"""Settled share of a stream below which a producer's MAXLEN is near to unread entries; as in the alert."""
FEW = 1000
FORGOTTEN_MS = 3_600_000
"""A group whose consumers are all silent for this long is taken for forgotten."""


SHOWN = 5


def examine_stream(health: StreamHealth, *, patience: Patience, paused: bool = False) -> list[Finding]:
    """Return findings about a stream and its group; a paused stream is not expected to be read."""
    status = health.status
    if not status.exists:
        return [_without_group(status)]
    found = [*_waiting(health, patience, paused), *_stuck(health, patience), *_headroom(status)]
    found += [_forgotten(status.stream, other) for other in health.others if _is_forgotten(other)]
    if status.dead_letters:
        found.append(
            warning(
                "dead letters",
                f"{status.stream} has dead letters: {status.dead_letters:,}",
                f"see why with `event-router dlq list --stream {status.stream}`, then replay or purge them",
            )
        )
    if not any(finding.is_at_least("warning") for finding in found):
        lag = "unknown" if status.lag is None else f"{status.lag:,}"
        counts = f"lag {lag}, pending {status.pending:,}, consumers {status.consumers}"
        found.insert(0, ok("group", f"{status.stream}: {counts}"))
    return found


async def examine_types(caller: Caller, wanted: dict[str, str]) -> list[Finding]:
    """Return an error for each key that is of another type than the one wanted of it."""
    found = []
    for key, kind in wanted.items():
        is_now = (await caller.call("TYPE", key)).decode()
        if is_now not in (kind, "none"):
            found.append(
                error(
                    "key type",
                    f"{key} is a {is_now}, not a {kind}",
                    "find out who writes it, and rename it; the router makes its own anew",
                )
            )
    return found


def _without_group(status: StreamStatus) -> Finding:
    if status.length:
        return error(
            "group",
            f"{status.stream} holds entries ({status.length:,}) and has no group: nobody reads it",
            "start a router; it makes the group where the last one had settled",
        )
    return note("group", f"{status.stream} has no group yet", "the first router that serves it makes it")


def _waiting(health: StreamHealth, patience: Patience, paused: bool) -> list[Finding]:
    status = health.status
    alive = [consumer for consumer in health.consumers if consumer.idle_ms < patience.dead_ms]
    if (status.lag is None or status.lag or status.pending) and not alive:
        lag = "an unknown number of" if status.lag is None else f"{status.lag:,}"
        return [
            error(
                "group",
                f"{status.stream}: {lag} entries wait, {status.pending:,} are pending, and no consumer is"
                " alive",
                "start routers that serve this stream, or look at why they do not get ready (/readyz)",
            )
        ]
    if status.lag and not paused and not any(_reads(consumer, patience) for consumer in alive):
        silent_s = min(consumer.idle_ms for consumer in alive) / 1000
        return [
            warning(
                "group",
                f"no router reads {status.stream}: {status.lag:,} entries wait, and nobody has asked for any"
                f" for {silent_s:,.0f} s",
                "start one",
            )
        ]
    if status.lag_seconds is not None and status.lag_seconds * 1000 > patience.due_ms:
        return [
            warning(
                "group",
                f"{status.stream}: the oldest unsettled entry is {status.lag_seconds:,.0f} s old",
                "add routers, or look at what their handlers wait for",
            )
        ]
    if status.lag_is_wrong:
        return [
            note("group", f"{status.stream}: Redis reports a lag that is none", "running routers mend it")
        ]
    return []


def _reads(consumer: ConsumerHealth, patience: Patience) -> bool:
    return consumer.idle_ms < (patience.renewed_ms if consumer.pending else patience.silent_ms)


def _stuck(health: StreamHealth, patience: Patience) -> list[Finding]:
    stream = health.status.stream
    dead = [one for one in health.consumers if one.idle_ms >= patience.dead_ms]
    holding = [one for one in dead if one.pending]
    found = [
        warning(
            "dead consumer",
            f"{stream}: {one.name} holds pending entries ({one.pending:,}) and is silent for"
            f" {one.idle_ms / 1000:,.0f} s",
            "a running router takes them over by itself; without one, start one",
        )
        for one in holding[:SHOWN]
    ]
    if len(holding) > SHOWN:
        found.append(note("dead consumer", f"{stream}: {len(holding) - SHOWN} more hold entries"))
    if len(dead) > len(holding):
        found.append(
            note(
                "dead consumer",
                f"{stream}: {len(dead) - len(holding)} dead consumers hold nothing",
                "running routers remove them",
            )
        )
    if health.stale and not holding:
        entry_id, idle_ms = health.stale
        found.append(
            warning(
                "group",
                f"{stream}: {entry_id} is pending for {idle_ms / 1000:,.0f} s, and nobody has taken it over",
                "look at the routers' logs; /readyz says what each waits for",
            )
        )
    return found


def _headroom(status: StreamStatus) -> list[Finding]:
    found = []
    if status.trimmed_unread:
        found.append(
            error(
                "trimming",
                f"{status.stream}: {status.trimmed_unread:,} entries were trimmed before anybody read them",
                "have producers use a larger MAXLEN or none; the router trims what is settled",
            )
        )
    if status.lag is None or not status.length:
        return found
    unsettled = status.lag + status.pending
    share = max(0.0, 1 - unsettled / status.length)
    was_trimmed = status.added is None or status.added > status.length
    if share < LITTLE_HEADROOM and unsettled > FEW and was_trimmed:
        found.append(
            warning(
                "trimming",
                f"{status.stream}: only {share:.0%} of {status.length:,} entries are settled: trimming to a"
                " length soon destroys unread ones",
                "have producers use a larger MAXLEN or none, and add routers",
            )
        )
    return found


def _is_forgotten(other: OtherGroup) -> bool:
    unread = other.lag is None or other.lag > 0 or other.pending > 0
    return unread and (other.idle_ms is None or other.idle_ms > FORGOTTEN_MS)


def _forgotten(stream: str, other: OtherGroup) -> Finding:
    silent = (
        "has no consumers" if other.idle_ms is None else f"is silent for {other.idle_ms / 3_600_000:,.0f} h"
    )
    behind = (
        "unread entries"
        if other.lag is None
        else f"{other.lag:,} unread and {other.pending:,} pending entries"
    )
    return warning(
        "retention",
        f"{stream}: group {other.name} {silent} and has {behind}: nothing behind them is trimmed",
        f"start its readers, or give it up: XGROUP DESTROY {stream} {other.name}",
    )
