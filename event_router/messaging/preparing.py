"""Which stream an event goes to, and its entry, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from event_router.core.encoding import Encoder, ProducedEvent, members_of
from event_router.core.errors import ConfigurationError, InvalidEvent
from event_router.core.event import AnyEvent
from event_router.core.keys import KeyNames
from event_router.core.payloads import check_identifier
from event_router.core.timestamps import shortened

MOST_KNOWN = 1_000
SHARDS = 4
"""Streams a job's events are spread over where nobody says a number."""


class Prepared:
    """An entry that the router will take.

    Attributes:
        stream: where it goes.
        fields: names and values in turn.
        event: what the router will make of it; without handlers its `data` and `key` are empty.
    """

    __slots__ = ("event", "fields", "stream")

    def __init__(self, stream: str, fields: list[bytes], event: AnyEvent) -> None:
        self.stream = stream
        self.fields = fields
        self.event = event

    def __repr__(self) -> str:
        return f"<Prepared {self.stream} {self.event.type}>"


class Preparer:
    """Prepares events for the streams of the router.

    Args:
        names: the router's templates and shards.
        new_id: makes the `id` of an event that has none; None leaves it without.
        now_ms: epoch milliseconds.
    """

    def __init__(
        self,
        encoder: Encoder,
        names: KeyNames,
        *,
        new_id: Callable[[], str] | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._encoder = encoder
        self._new_id = new_id
        self._now_ms = now_ms
        self.names = names
        self._known: dict[str, tuple[str, str]] = {}

    def prepare(self, stream: str, event: ProducedEvent) -> Prepared:
        """Return the entry for a stream named in full, or for the stream of a domain and the event's key.

        Raises:
            InvalidEvent: the router would dead-letter it.
            ConfigurationError: the domain has several streams, and nothing says which the event goes to.
        """
        domain, name = self._known.get(stream) or self._look_up(stream)
        members = members_of(event)
        prepared = self._prepared(name, domain, members)
        if not name:
            prepared.stream = self._shard(domain, prepared.event, members)
        return prepared

    def prepare_for_job(
        self, domain: str, job_id: str, event: ProducedEvent, shards: int | None = None
    ) -> Prepared:
        """Return the entry for the shard of a job; without a `job_id` of its own it gets this one.

        Args:
            shards: how many the domain has; None for what `names` says.

        Raises:
            InvalidEvent: as `prepare`; also a `job_id` that is no identifier, or not the event's.
            ConfigurationError: `names` says another number of shards.
        """
        job = check_identifier("job_id", job_id)
        told = self.names.shards.get(domain)
        if shards is None:
            names = self.names
        elif told in (None, shards):
            names = replace(self.names, shards={domain: shards})
        else:
            raise ConfigurationError(
                f"{shards} shards for domain {domain!r}, which has {told}: routers read what SHARDS says"
            )
        members = members_of(event)
        own = members.get("job_id")
        if own is None:
            members = {**members, "job_id": job}
        elif (own if isinstance(own, str) else str(own)) != job:
            raise InvalidEvent(f"field 'job_id' is {shortened(own)}, in an event for job {shortened(job)}")
        return self._prepared(names.stream(domain, job), domain, members)

    def _prepared(self, stream: str, domain: str, members: Mapping[str, object]) -> Prepared:
        now_ms = self._now_ms()
        if self._new_id is not None and members.get("id") is None and "data" not in members:
            members = {**members, "id": self._new_id()}
        fields, decoded = self._encoder.encode(domain, members, now_ms=now_ms)
        if self._new_id is not None and decoded.producer_id is None:
            fields, decoded = self._encoder.encode(domain, {**members, "id": self._new_id()}, now_ms=now_ms)
        return Prepared(stream, fields, decoded)

    def _look_up(self, stream: str) -> tuple[str, str]:
        """Return the domain and, unless each event's key decides, the stream in full."""
        domain = self.names.domain_of(stream)
        if domain is not None:
            found = (domain, stream)
        else:
            streams = self.names.streams(stream)
            found = (stream, streams[0] if len(streams) == 1 else "")
        if len(self._known) < MOST_KNOWN:
            self._known[stream] = found
        return found

    def _shard(self, domain: str, event: AnyEvent, members: Mapping[str, object]) -> str:
        key = event.key
        if not self._encoder.knows_handlers:
            job_id = members.get("job_id")
            if job_id is None:
                raise ConfigurationError(
                    f"domain {domain!r} has {self.names.shards.get(domain)} shards, and without its handlers"
                    " nothing says which one the event goes to: give handlers, or name the stream in full"
                )
            key = check_identifier("job_id", job_id)
        return self.names.stream(domain, key)
