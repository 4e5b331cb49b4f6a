"""From what a command is told to the streams it is about: a stream, or a domain for those that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from event_router.cli.connecting import registry_of
from event_router.cli.failures import WrongUsage

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from event_router.settings import Settings


def served_domains(settings: Settings) -> tuple[str, ...]:
    """Return the domains whose streams the router reads."""
    return settings.domains or tuple(registry_of(settings).domains)


def streams_of(settings: Settings, only: str | None = None) -> list[str]:
    """Return the streams of the served domains, or of the domain or stream that is named.

    `dlq:{stream}` means the stream.
    """
    if only is None:
        return [stream for domain in served_domains(settings) for stream in settings.streams(domain)]
    name = only.removeprefix("dlq:")
    return list(settings.streams(name)) if name in _domains_known(settings) else [name]


def named_stream(settings: Settings, name: str) -> str:
    """Return the one stream that is named by itself or its domain.

    Raises:
        WrongUsage: the domain has several; names them.
    """
    return _one(streams_of(settings, name), name)


def served_stream(settings: Settings, name: str) -> str:
    """Return the stream that is named by itself or its domain, if the router reads it.

    Raises:
        WrongUsage: it does not, or the domain has several; names those that are meant.
    """
    stream = named_stream(settings, name)
    known = streams_of(settings)
    if stream not in known:
        raise WrongUsage(f"{name!r} is no stream of the served domains: {', '.join(known)}")
    return stream


async def existing_streams(client: Redis, settings: Settings, only: str | None = None) -> list[str]:
    """Return what `streams_of` does, if the router reads it or something is or was there.

    Raises:
        WrongUsage: no router that has these settings reads it, and there is neither a stream of this name
            nor a dead letter: a mistake that would look like a stream where all is well.
    """
    from event_router.core.keys import dead_letter_stream

    streams = streams_of(settings, only)
    known = [stream for domain in _domains_known(settings) for stream in settings.streams(domain)]
    for stream in streams:
        if stream not in known and not await client.exists(stream, dead_letter_stream(stream)):
            others = f"; the routers read {', '.join(known)}" if known else ""
            raise WrongUsage(f"there is no stream {stream!r}, and no dead letter of one{others}")
    return streams


async def existing_stream(client: Redis, settings: Settings, name: str) -> str:
    """Return the one stream that is named by itself or its domain; raises as `existing_streams`."""
    return _one(await existing_streams(client, settings, name), name)


def _one(streams: list[str], name: str) -> str:
    if len(streams) > 1:
        raise WrongUsage(f"domain {name!r} has several streams, name one: {', '.join(streams)}")
    return streams[0]


def _domains_known(settings: Settings) -> tuple[str, ...]:
    """Return the served domains as far as is known: a stream can be looked at without its handlers."""
    from event_router.core.errors import ConfigurationError

    try:
        return served_domains(settings)
    except ConfigurationError:
        return settings.domains
