"""Presence with a clock that a test sets, beside the model that says what must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec
import redis

from event_router.patterns.presence import Presence

PREFIX = "event-router:presence:"
LOG = "outbox:presence"
TTL_MS = 60_000
NOW_MS = 1_767_225_600_000
RANKS = {"away": 1, "online": 2, "busy": 3, "offline": 4}
STATUSES = ("offline", "away", "online", "busy")

_CLOCK = "return time[1] * 1000 + math.floor(time[2] / 1000)"
_OBSERVE = """
local sent = cmsgpack.unpack(ARGV[1])
return observe_presence(sent[1], sent[2], sent[3])
"""


@dataclass(frozen=True)
class Change:
    user: str
    connection: str | None
    status: str
    at: int


@dataclass(frozen=True)
class Told:
    """One change of a user's status, as the fragment tells its caller."""

    user: str
    before: str
    status: str
    last_seen: int


@dataclass
class Stored:
    """Everything under the prefix, by the last word of each key."""

    connections: Mapping[str, str]
    users: Mapping[str, int]
    names: Mapping[str, int]
    due: Mapping[str, int]
    seen: Mapping[str, int]


class PresenceBench:
    """Calls the fragment at any time; `most` and `chunk` make its limits small enough to be reached."""

    def __init__(self, client: redis.Redis, *, most: int = 64, chunk: int = 500) -> None:
        self.client = client
        text = resources.files("event_router").joinpath("lua", "presence.lua").read_text("utf-8")
        for name, value in (("MOST_CONNECTIONS", most), ("CHUNK", chunk)):
            head, _, tail = text.partition(f"local {name} = ")
            text = f"{head}local {name} = {value} --{tail}"
        self._text = f"#!lua\n{text}{_OBSERVE}"

    def observe(self, now_ms: int, changes: Iterable[Change]) -> list[Told]:
        """Apply changes in one call."""
        rows = [
            (c.user, c.connection if c.connection is not None else False, c.status, str(c.at))
            for c in changes
        ]
        return self._sent(now_ms, rows)

    def look_again(self, now_ms: int) -> list[Told]:
        """Look at everybody who is due."""
        keys = (f"{PREFIX}users", f"{PREFIX}due")
        return self.tidy(now_ms, [u for key in keys for u in self.client.zrangebyscore(key, "-inf", now_ms)])

    def tidy(self, now_ms: int, users: Iterable[str]) -> list[Told]:
        """Look at these users, due or not: what lapsed without consequence leaves their records."""
        return self._sent(now_ms, [(user, False, False, "0") for user in users])

    def _sent(self, now_ms: int, rows: list[Any]) -> list[Told]:
        packed = msgspec.msgpack.encode((now_ms, TTL_MS, rows))
        return [Told(*row) for row in self.client.eval(self._text, 0, packed)]

    def stored(self) -> Stored:
        """Return everything that is kept."""
        sets = {
            name: {
                user: int(score) for user, score in self.client.zrange(PREFIX + name, 0, -1, withscores=True)
            }
            for name in ("users", "names", "due", "seen")
        }
        return Stored(self.client.hgetall(f"{PREFIX}connections"), **sets)


def expected(changes: Iterable[Change], now_ms: int, *, most: int = 64) -> Stored:
    """What is kept once all changes are applied and everybody due was looked at, in whatever order."""
    stored = Stored({}, {}, {}, {}, {})
    of: dict[str, list[Change]] = {}
    for change in changes:
        of.setdefault(change.user, []).append(change)
    for user, own in of.items():
        times = [min(change.at, now_ms) for change in own]
        stored.seen[user] = max(times)
        ended, lines = 0, dict[str, tuple[int, int]]()
        for change, at in zip(own, times, strict=True):
            if change.status == "offline" and change.connection is None:
                ended = max(ended, at)
            else:
                name = change.connection or ""
                lines[name] = max(lines.get(name, (0, 0)), (at, RANKS[change.status]))
        lapsed = now_ms - TTL_MS
        ended = ended if ended > lapsed else 0
        counting = {name: line for name, line in lines.items() if line[0] > max(lapsed, ended)}
        newest = sorted(counting, key=lambda name: (*counting[name], name))[-most:]
        kept = {name: counting[name] for name in sorted(newest)}
        present = [(rank, at) for at, rank in kept.values() if rank < RANKS["offline"]]
        rank = max(present)[0] if present else 0
        if kept or ended:
            end = [f"\n{ended} 5 "] if ended else []
            stored.connections[user] = "".join(
                [str(rank), *end, *(f"\n{at} {rank} {name}" for name, (at, rank) in kept.items())]
            )
        if present:
            until, decisive = max(at for _, at in present), max(at for its, at in present if its == rank)
            stored.users[user], stored.names[user] = until + TTL_MS, 0
            if decisive < until:
                stored.due[user] = decisive + TTL_MS
        elif kept or ended:
            stored.due[user] = max([ended, *(at for at, _ in kept.values())]) + TTL_MS
    return stored


def status_in(stored: Stored, user: str) -> str:
    """The status of a user that a record says."""
    return STATUSES[int(stored.connections.get(user, "0")[0])]


def with_clock(presence: Presence) -> Presence:
    """Let the scripts take the time from the key `test:now`."""
    for name, script in vars(presence).items():
        if name in ("_update", "_expire", "_get", "_page", "_count"):
            assert _CLOCK in script.text
            script.text = script.text.replace(_CLOCK, "return tonumber(redis.call('GET', 'test:now'))")
            script.sha = "0" * 40
    return presence
