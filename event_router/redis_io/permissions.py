"""Dry runs: what a user lacks of what it has to be allowed, without running any of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from event_router.core.errors import RedisUnavailable
from event_router.core.permissions import Grant
from event_router.redis_client.replies import is_denied
from event_router.redis_client.script import Caller, Script

_WORDS = {
    "acl|dryrun": "ACL DRYRUN default PING",
    "acl|whoami": "ACL WHOAMI",
    "client|id": "CLIENT ID",
    "client|list": "CLIENT LIST",
    "client|setinfo": "CLIENT SETINFO LIB-NAME x",
    "client|setname": "CLIENT SETNAME x",
    "client|unblock": "CLIENT UNBLOCK 0",
    "eval": "EVAL x 1 {}",
    "evalsha": "EVALSHA x 1 {}",
    "hdel": "HDEL {} f",
    "hexists": "HEXISTS {} f",
    "hget": "HGET {} f",
    "hincrby": "HINCRBY {} f 1",
    "hmget": "HMGET {} f",
    "hset": "HSET {} f v",
    "pexpire": "PEXPIRE {} 1",
    "expire": "EXPIRE {} 1",
    "publish": "PUBLISH {} x",
    "scan": "SCAN 0",
    "script|load": "SCRIPT LOAD x",
    "select": "SELECT 0",
    "set": "SET {} v",
    "xack": "XACK {} g 0-1",
    "xadd": "XADD {} * f v",
    "xautoclaim": "XAUTOCLAIM {} g c 0 0",
    "xclaim": "XCLAIM {} g c 0 0-1",
    "xdel": "XDEL {} 0-1",
    "xgroup|create": "XGROUP CREATE {} g 0",
    "xgroup|delconsumer": "XGROUP DELCONSUMER {} g c",
    "xgroup|destroy": "XGROUP DESTROY {} g",
    "xgroup|setid": "XGROUP SETID {} g 0",
    "xinfo|consumers": "XINFO CONSUMERS {} g",
    "xinfo|groups": "XINFO GROUPS {}",
    "xinfo|stream": "XINFO STREAM {}",
    "xpending": "XPENDING {} g",
    "xrange": "XRANGE {} - +",
    "xread": "XREAD STREAMS {} 0",
    "xreadgroup": "XREADGROUP GROUP g c STREAMS {} >",
    "xrevrange": "XREVRANGE {} + -",
    "xtrim": "XTRIM {} MAXLEN 0",
    "zadd": "ZADD {} 0 m",
    "zcount": "ZCOUNT {} 0 0",
    "zmscore": "ZMSCORE {} m",
    "zrangebylex": "ZRANGEBYLEX {} - +",
    "zrangebyscore": "ZRANGEBYSCORE {} 0 0",
    "zrem": "ZREM {} m",
    "zscore": "ZSCORE {} m",
}
"""Each command with arguments as Redis needs them to see its key; others are the command and the key."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A command that a user may not run, and the key or channel; empty where it takes none."""

    purpose: str
    command: str
    place: str


class CannotTell(Exception):
    """The user may not even ask what it may."""


async def missing_permissions(caller: Caller, grants: Sequence[Grant], user: str) -> list[Missing]:
    """Return what of the grants the caller's user may not do; `*` in their patterns stands for any one name.

    Raises:
        CannotTell: the user may neither run a script nor ACL DRYRUN.
        RedisUnavailable: no reply.
    """
    asked = [
        (Missing(grant.purpose, command.replace("|", " "), place), _sample(command, place))
        for grant in grants
        for place in (*grant.keys, *grant.channels) or ("",)
        for command in grant.commands
    ]
    try:
        packed = msgspec.msgpack.encode([words for _, words in asked])
        refused = await caller.call("EVAL", Script("permitted").text, 0, packed)
        return [asked[place - 1][0] for place in refused]
    except RedisUnavailable as error:
        if not is_denied(error):
            raise
    try:
        return [lacking for lacking, words in asked if not await _dry_run(caller, user, words)]
    except RedisUnavailable as error:
        if not is_denied(error):
            raise
        raise CannotTell from error


async def _dry_run(caller: Caller, user: str, words: Sequence[str]) -> bool:
    return bool(await caller.call("ACL", "DRYRUN", user, *words) == b"OK")


def _sample(command: str, pattern: str) -> list[str]:
    words = _WORDS.get(command, f"{command} {{}}" if pattern else command).split()
    place = pattern.replace("*", "0")
    return [place if word == "{}" else word for word in words]
