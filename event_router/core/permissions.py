"""What each of the router's users may do on a server, and nothing else: the source of ACL rules and dry runs.

A grant is one selector of an ACL rule: its commands, on its keys and channels only. A command that a script
or a class starts to use belongs here, in the grant of the keys it is used on; tests find it missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from event_router.core.channels import NOTIFICATIONS, PRESENCE, UPDATES
from event_router.core.errors import ConfigurationError
from event_router.core.keys import OWN_PREFIX, KeyNames

_PLACEHOLDER = re.compile(r"\{\w+\}")

HASHES = "hget hmget hgetall hset hincrby hdel del pexpire pttl type exists"
LOOK_AT_STREAM = "xrange xrevrange xread xlen xpending xinfo|stream xinfo|groups xinfo|consumers type exists"
PRESENCE_COMMANDS = "hget hmget hset hdel zadd zrem zscore zmscore zcount zrangebyscore zrangebylex type"
INPUT_INDEX = "zadd zrem zrangebyscore xadd xdel xrange xrevrange xread xinfo|stream type"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a user may do for one purpose.

    Attributes:
        purpose: a few words, for people.
        commands: in lower case; a subcommand behind `|`.
        keys: patterns of the keys they may name, in Redis's glob style.
        channels: patterns of the channels they may name.
    """

    purpose: str
    commands: tuple[str, ...]
    keys: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Patterns of all keys and channels of a router, made from the templates of its names.

    Attributes:
        streams: the streams of events, and those that handlers emit to.
        letters: dead-letter streams.
        states: hashes that handlers write.
        outboxes: fan-out logs.
        channels: what is published on.
        job_channels: channels of jobs' steps.
    """

    streams: tuple[str, ...]
    letters: tuple[str, ...]
    states: tuple[str, ...]
    outboxes: tuple[str, ...]
    channels: tuple[str, ...]
    job_channels: tuple[str, ...]

    @classmethod
    def of(cls, names: KeyNames, *, streams: Iterable[str] = (), channels: Iterable[str] = ()) -> Places:
        """Return the places of a router with these names.

        Args:
            streams: patterns of further streams that handlers emit to.
            channels: patterns of further channels that handlers publish on.

        Raises:
            ConfigurationError: a template has no word of its own, so that its pattern would be any key.
        """
        read = {_pattern("STREAM_TEMPLATE", names.stream_template)}
        if "{shard}" not in names.stream_template:
            read |= {f"{found}:*" for found in read if not found.endswith("*")}
        job = _pattern("JOB_CHANNEL_TEMPLATE", names.job_channel_template)
        return cls(
            streams=_sorted(read | {"events:notification", *streams}),
            letters=_sorted(f"dlq:{found}" for found in read),
            states=_sorted(
                {
                    f"{names.state_prefix}:*",
                    "stats:*",
                    _pattern("JOB_STATE_TEMPLATE", names.job_state_template),
                    "input:request:*",
                    "interaction:state:*",
                    _own("input:early:*"),
                }
            ),
            outboxes=(names.outbox("*"),),
            channels=_sorted(
                {job, "user:*", "chat:*", "events:*", NOTIFICATIONS, PRESENCE, UPDATES, *channels}
            ),
            job_channels=(job,),
        )

    @property
    def all_keys(self) -> tuple[str, ...]:
        """Every key that a script may be given."""
        return (*self.streams, *self.letters, *self.states, *self.outboxes, _own("*"))


def router_grants(places: Places, *, publishes: bool) -> tuple[Grant, ...]:
    """Return what the router's user may do on the streams Redis.

    Args:
        publishes: whether this server carries the fan-out too.
    """
    return (
        Grant(
            "connections", _words("ping select info time acl|whoami client|setname client|id client|unblock")
        ),
        Grant("state", _words(HASHES), places.states),
        Grant("settled checkpoints", _words("hget hset type"), (_own("checkpoint:*"),)),
        Grant("marks", _words("set get exists type"), (_own("mark:*"), _own("dedupe:*"))),
        Grant(
            "events",
            _words(
                f"{LOOK_AT_STREAM} xreadgroup xack xclaim xadd xtrim"
                " xgroup|create xgroup|setid xgroup|delconsumer"
            ),
            places.streams,
        ),
        Grant("dead letters", _words(f"{LOOK_AT_STREAM} xadd"), places.letters),
        Grant("fan-out logs", _words("xadd xread xlen xinfo|stream type exists"), places.outboxes),
        Grant("leases of relays", _words("hget hmget hset type"), (_own("relay:*"),)),
        Grant("presence", _words(PRESENCE_COMMANDS), (_own("presence:*"),)),
        Grant("requests for input", _words(INPUT_INDEX), (_own("input:*"),)),
        Grant("pauses", _words("get mget hget hmget hgetall exists type pttl"), (_own("pause*"),)),
        Grant("scripts of these commands", _words("eval evalsha"), places.all_keys),
        *(_publishing(places) if publishes else ()),
    )


def relay_grants(places: Places) -> tuple[Grant, ...]:
    """Return what the router's user may do on a Pub/Sub Redis of its own."""
    return (
        Grant("connections", _words("ping select info time acl|whoami client|setname")),
        *_publishing(places),
    )


def operator_grants(places: Places) -> tuple[Grant, ...]:
    """Return what the user of the commands may do that change things, and of `doctor`."""
    return (
        Grant(
            "connections",
            _words(
                "ping select info time scan acl|whoami acl|dryrun client|setname client|id client|unblock"
                " client|list script|load multi exec discard watch unwatch"
            ),
        ),
        Grant(
            "events",
            _words(
                f"{LOOK_AT_STREAM} xadd xack xclaim xautoclaim xtrim"
                " xgroup|create xgroup|setid xgroup|delconsumer xgroup|destroy"
            ),
            places.streams,
        ),
        Grant("dead letters", _words(f"{LOOK_AT_STREAM} xadd xdel xtrim"), places.letters),
        Grant("replay of large letters", _words("watch get set del"), (_own("replay:*"),)),
        Grant("state", _words("hget hmget hgetall get type exists ttl pttl"), places.states),
        Grant(
            "answers to requests",
            _words("hget hmget hgetall hset hexists del pexpire pttl type exists"),
            ("input:request:*", "interaction:state:*"),
        ),
        Grant("requests for input", _words(INPUT_INDEX), (_own("input:*"),)),
        Grant("fan-out logs", _words(LOOK_AT_STREAM), places.outboxes),
        Grant("settled checkpoints", _words("hget hgetall hset hdel type exists"), (_own("checkpoint:*"),)),
        Grant("presence", _words(PRESENCE_COMMANDS), (_own("presence:*"),)),
        Grant(
            "pauses",
            _words("get mget set del hget hmget hgetall hset hdel exists type expire pexpire ttl pttl"),
            (_own("pause*"),),
        ),
        Grant("scripts of these commands", _words("eval evalsha"), places.all_keys),
    )


def _publishing(places: Places) -> tuple[Grant, ...]:
    return (
        Grant("fan-out", _words("publish"), channels=places.channels),
        Grant("health of Pub/Sub", _words("client|list")),
        Grant("`job watch`", _words("subscribe unsubscribe"), channels=places.job_channels),
    )


def _pattern(setting: str, template: str) -> str:
    pattern = re.sub(r"\*+", "*", _PLACEHOLDER.sub("*", template))
    if not any(character.isalnum() for character in pattern):
        raise ConfigurationError(
            f"EVENT_ROUTER_{setting} {template!r} has no word of its own: no ACL rule can tell its keys from"
            " others; put one into it"
        )
    return pattern


def _own(rest: str) -> str:
    return f"{OWN_PREFIX}:{rest}"


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split()))


def _sorted(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns in order, without those that a broader one with a `*` at its end covers."""
    found = set(patterns)
    broad = {pattern for pattern in found if pattern.count("*") == 1 and pattern.endswith("*")}
    return tuple(
        sorted(
            pattern
            for pattern in found
            if not any(pattern != other and pattern.startswith(other[:-1]) for other in broad)
        )
    )
