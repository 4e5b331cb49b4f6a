"""Names of keys, streams and channels, made from the templates of the settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from event_router.core.errors import StateError

OWN_PREFIX = "event-router"
"""Everything of the router's own begins with it, so that an ACL can name it."""
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class KeyNames:
    """Templates of every name on the wire. The defaults are those of the design.

    `stream_template` may hold `{shard}`; without it, `:{shard}` is appended for sharded domains.
    """

    stream_template: str = "events:{domain}"
    state_prefix: str = "state"
    job_state_template: str = "{domain}:state:{job_id}"
    job_state_ttl_ms: int = 3_600_000
    job_channel_template: str = "sse:events:{job_id}"
    outbox_maxlen: int = 100_000
    shards: Mapping[str, int] = field(default_factory=dict)

    def streams(self, domain: str) -> tuple[str, ...]:
        """Return the streams of a domain, one for each shard."""
        count = self.shards.get(domain, 1)
        if count == 1 and "{shard}" not in self.stream_template:
            return (self.stream_template.replace("{domain}", domain),)
        template = self.stream_template
        if "{shard}" not in template:
            template += ":{shard}"
        return tuple(
            template.replace("{domain}", domain).replace("{shard}", str(shard)) for shard in range(count)
        )

    def stream(self, domain: str, key: str) -> str:
        """Return the stream of a domain that events with this ordering key go to."""
        streams = self.streams(domain)
        return streams[shard_of(key, len(streams))]

    def domain_of(self, stream: str) -> str | None:
        """Return the domain of a stream that is named in full, None for any other name."""
        found = _stream_pattern(self.stream_template).fullmatch(stream)
        return found and found["domain"]

    def entity(self, entity_type: str, entity_id: str) -> str:
        """Return `state:{type}:{id}`. Raises StateError for a type that is no plain word."""
        return f"{self.state_prefix}:{_word('entity type', entity_type)}:{entity_id}"

    def statistics(self, kind: str, name: str) -> str:
        """Return `stats:{kind}:{name}`. Raises StateError for a kind that is no plain word."""
        return f"stats:{_word('kind of statistics', kind)}:{name}"

    def job_state(self, domain: str, job_id: str) -> str:
        """Return the key of a job's state."""
        return self.job_state_template.replace("{domain}", domain).replace("{job_id}", job_id)

    def job_channel(self, job_id: str) -> str:
        """Return the channel on which a job's steps are published."""
        return self.job_channel_template.replace("{job_id}", job_id)

    def input_request(self, job_id: str, number: int | None = None) -> str:
        """Return the key of a job's question of this number; without one, of its newest."""
        return f"input:request:{job_id}" if number is None else f"input:request:{job_id}:{number}"

    def interaction(self, job_id: str) -> str:
        """Return the key that says what a job waits for from its user."""
        return f"interaction:state:{job_id}"

    def outbox(self, domain: str) -> str:
        """Return the fan-out log of a domain."""
        return f"outbox:{domain}"

    def mark(self, name: str) -> str:
        """Return the key of a once-only mark."""
        return f"{OWN_PREFIX}:mark:{name}"


@lru_cache(maxsize=256)
def _word(what: str, text: str) -> str:
    if not _WORD.fullmatch(text):
        raise StateError(f"{what} {text!r} must be a word")
    return text


@lru_cache(maxsize=16)
def _stream_pattern(template: str) -> re.Pattern[str]:
    """Return what full stream names look like, those of shards included."""
    pattern = re.escape(template).replace(re.escape("{domain}"), "(?P<domain>[^:]+)", 1)
    pattern = pattern.replace(re.escape("{domain}"), "(?P=domain)")
    if "{shard}" in template:
        return re.compile(pattern.replace(re.escape("{shard}"), "[0-9]+"))
    return re.compile(f"{pattern}(:[0-9]+)?")


def dead_letter_stream(stream: str) -> str:
    """Return the stream that takes the dead letters of a stream."""
    return f"dlq:{stream}"


def checkpoint_key(group: str) -> str:
    """Return the hash that keeps, per stream, the id up to which a group has settled everything."""
    return f"{OWN_PREFIX}:checkpoint:{group}"


def early_answers_key(request_id: str) -> str:
    """Return the hash that keeps, per user, answers that overtook their question."""
    return f"{OWN_PREFIX}:input:early:{request_id}"


def dedupe_key(stream: str, unique_id: str) -> str:
    """Return the mark of an event that its producer gave an id, while the id is remembered."""
    return f"{OWN_PREFIX}:dedupe:{stream}:{unique_id}"


def shard_of(key: str, shards: int) -> int:
    """Return the shard of an ordering key: the md5 of its UTF-8 bytes as a number, modulo the shards."""
    if shards == 1:
        return 0
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16) % shards
