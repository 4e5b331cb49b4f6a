"""Who is online, on any number of connections, and who was last seen when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from redis.asyncio import Redis

from event_router.core.errors import ConfigurationError, InvalidEvent, StateError
from event_router.core.payloads import check_identifier
from event_router.core.presence import STATUSES, Status
from event_router.core.timestamps import LAST_MS, parse_time, shortened, to_datetime, to_milliseconds
from event_router.core.values import text_bytes
from event_router.patterns.bounded import BoundedCalls
from event_router.redis_client.script import Caller, Script

MAX_CONNECTIONS = 64
"""Of a user's connections so many count, the newest (`lua/presence.lua`)."""
MAX_PAGE = 10_000
LOOKED_AT_ONCE = 1000
"""Names one script call looks at, so that Redis is blocked for a few milliseconds at most."""


@dataclass(frozen=True, slots=True)
class UserPresence:
    """What is known of a user now.

    Attributes:
        status: `busy` if any connection is busy, else `online` if any is, else `away` if any is.
        last_seen: the time of the latest change, a sign-off included; None if there is none that is kept.
        connections: how many have not lapsed, 64 at most.
    """

    user_id: str
    status: Status
    last_seen: datetime | None = None
    connections: int = 0


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """A user's status before and after an update."""

    user_id: str
    before: Status
    status: Status


@dataclass(frozen=True, slots=True)
class PresencePage:
    """Users who are present, in the order of the bytes of their ids.

    Attributes:
        next: what to begin the next page after; None at the end.
    """

    users: tuple[UserPresence, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Expired:
    """What an expiry did.

    Attributes:
        taken: users who were due, those forgotten included; there may be more where it is the limit.
        changed: of how many the status changed.
    """

    taken: int
    changed: int


class Presence:
    """Presence of users, kept in Redis under `event-router:presence:`.

    A change says that a connection of a user had a status at a time. The latest change of a connection
    counts; it lapses `ttl_s` after its time unless it is repeated, which is the heartbeat. Only times and the
    clock of the Redis server decide: changes may come late, repeated or in any order, and leave the same
    state.

    A user's change of status, and nothing else, is announced: in the same step a message goes into the
    fan-out log, which a router publishes on the channel at least once.

    Every method sends its script once and raises OutcomeUnknown where the reply is lost (calling it again is
    safe), RedisUnavailable when Redis cannot be reached or refuses for now, RedisRefused when one of the keys
    holds something else. Nothing is written then.

    Args:
        redis: a client of the Redis with the state, or what runs commands on it.
        ttl_s: how long a change counts, in seconds; the same for all who share the keys (`PRESENCE_TTL_S`).
        last_seen_s: how long last seen is kept, in seconds (`PRESENCE_LAST_SEEN_S`).
        channel: where changes of status are announced (`PRESENCE_CHANNEL`).
        outbox: the fan-out log the announcements go to, kept at about `outbox_maxlen` entries.
        timeout_s: how long a call on a client may take, in seconds.

    Raises:
        ConfigurationError: an argument is not possible.
    """

    def __init__(
        self,
        redis: Redis | Caller,
        *,
        ttl_s: float = 60.0,
        last_seen_s: float = 30 * 86_400.0,
        channel: str = "presence",
        outbox: str = "outbox:presence",
        outbox_maxlen: int = 100_000,
        timeout_s: float = 5.0,
    ) -> None:
        if not 0.001 <= ttl_s <= 86_400:
            raise ConfigurationError(f"ttl_s is {ttl_s}; possible are 0.001 s to a day")
        if not ttl_s <= last_seen_s <= 10 * 366 * 86_400:
            raise ConfigurationError(f"last_seen_s is {last_seen_s}; possible are ttl_s to ten years")
        if outbox_maxlen < 1:
            raise ConfigurationError(f"outbox_maxlen is {outbox_maxlen}; at least 1 is possible")
        self._caller = BoundedCalls(redis, timeout_s) if isinstance(redis, Redis) else redis
        self._ttl_ms = str(round(ttl_s * 1000))
        self._last_seen_ms = str(round(last_seen_s * 1000))
        self._channel = channel
        self._outbox = outbox
        self._outbox_maxlen = str(outbox_maxlen)
        self._update, self._expire = _script("update"), _script("expire")
        self._get, self._page, self._count = _script("get"), _script("page"), _script("count")

    def __repr__(self) -> str:
        return f"<Presence ttl {int(self._ttl_ms) / 1000:g} s, announced on {self._channel!r}>"

    async def update(
        self,
        user_id: str | int,
        status: Status = "online",
        *,
        connection: str | int | None = None,
        at: datetime | int | str | None = None,
    ) -> PresenceChange | None:
        """Note a status; repeat it within `ttl_s` to keep it. Returns the user's change of status, if any.

        Args:
            connection: which of the user's connections; None is one of its own. `offline` ends the
                connection, without one all connections as of `at`.
            at: when it was so: datetime, ISO 8601 or epoch milliseconds; None is now. What has lapsed since
                changes last seen only; what is older than a change known of the connection changes nothing;
                a time ahead of the server's clock counts as now.

        Raises:
            StateError: an argument is not possible.
        """
        if status not in STATUSES:
            raise StateError(f"status {shortened(status)} is none of {', '.join(STATUSES)}")
        user = _identifier("user_id", user_id)
        where = "" if connection is None else _identifier("connection", connection)
        when = "" if at is None else str(_milliseconds(at))
        arguments = (self._ttl_ms, self._outbox_maxlen, self._channel, user, status, where, when)
        reply = await self._update.run(self._caller, (self._outbox,), arguments)
        return PresenceChange(user, _status(reply[0]), _status(reply[1])) if reply else None

    async def get(self, user_id: str | int) -> UserPresence:
        """Return what is known of a user now; one who was never seen is offline."""
        user = _identifier("user_id", user_id)
        return _user(user, *await self._get.run(self._caller, (), (self._ttl_ms, user)))

    async def count(self) -> int:
        """Return how many users are present now: online, away or busy."""
        return int(await self._count.run(self._caller))

    async def online_users(self, *, after: str | None = None, limit: int = 1000) -> PresencePage:
        """Return a page of the users who are present now: online, away or busy.

        Who is present from the first page to the last is on exactly one of them.

        Args:
            after: the previous page's `next`; None begins.
            limit: users on the page, 1 to 10,000; only the last page has fewer.

        Raises:
            StateError: an argument is not possible.
        """
        if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
            raise StateError(f"a page of {limit!r} users is not possible; give 1 to {MAX_PAGE:,}")
        position = b"" if after is None else text_bytes(_identifier("after", after))
        users: list[UserPresence] = []
        while len(users) < limit:
            count = min(LOOKED_AT_ONCE, limit - len(users))
            position, *found = await self._page.run(self._caller, (), (self._ttl_ms, position, count))
            users += (_user(_text(found[i]), *found[i + 1 : i + 4]) for i in range(0, len(found), 4))
            if not position:
                return PresencePage(tuple(users), None)
        return PresencePage(tuple(users), _text(position))

    async def expire(self, *, limit: int = 250) -> Expired:
        """Announce who has gone offline or changed status because a connection lapsed.

        Every router does it each second; any number of callers announce each change once. What the other
        methods answer does not depend on it. Costs what is due, `limit` users at most.
        """
        arguments = (self._ttl_ms, self._outbox_maxlen, self._channel, limit, self._last_seen_ms)
        taken, changed = await self._expire.run(self._caller, (self._outbox,), arguments)
        return Expired(taken, changed)


def _script(name: str) -> Script:
    announced = ("presence_announced",) if name in ("update", "expire") else ()
    return Script(f"presence_{name}", "event_router.patterns", fragments=("presence", *announced))


def _user(user_id: str, status: bytes, last_seen: bytes | None, connections: int) -> UserPresence:
    seen = None if last_seen is None else to_datetime(min(int(float(last_seen)), LAST_MS))
    return UserPresence(user_id, _status(status), seen, connections)


def _status(raw: bytes) -> Status:
    return cast(Status, raw.decode())


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _identifier(name: str, value: object) -> str:
    try:
        return check_identifier(name, value)
    except InvalidEvent as error:
        raise StateError(f"presence: {error}") from None


def _milliseconds(at: Any) -> int:
    try:
        return parse_time(to_milliseconds(at) if isinstance(at, datetime) else at)
    except ValueError as error:
        raise StateError(f"presence: at: {error}") from None
