"""`event-router tail`: events as they come in, or from a position on; it takes them from nobody."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import (
    check_served,
    complete,
    connected,
    moment,
    reason_of,
    registry_of,
    settings_from,
)
from event_router.cli.failures import WrongUsage
from event_router.cli.options import Config, Form, Output, Stream, StreamsUrl
from event_router.cli.output import note, print_json, printable
from event_router.cli.streams import existing_streams, served_domains

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from event_router.redis_client.sent_once import SentOnce
    from event_router.settings import Settings

COUNT = 200
BLOCK_MS = 1000
REPLY_S = 3.0
PAUSE_S = 0.5
_ID = re.compile(r"(?!\d{4}-\d\d$)[0-9]{1,20}-[0-9]{1,20}")
"""An entry's id, and no year and month."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are shown: those of one of the types, of the job, of the user; None or none is any."""

    types: Sequence[str] = ()
    job: str | None = None
    user: str | None = None

    def passes(self, fields: Mapping[str, Any], event_type: str) -> bool:
        """Whether an event with these fields is shown."""
        return (
            (not self.types or event_type in self.types or fields.get("type") in self.types)
            and (self.job is None or str(fields.get("job_id")) == self.job)
            and (self.user is None or str(fields.get("user_id")) == self.user)
        )


def tail(
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="Only this domain; may be repeated.")
    ] = None,
    event_type: Annotated[
        list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only events with this job_id.")] = None,
    user: Annotated[str | None, typer.Option(help="Only events with this user_id.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="0, an entry id, ISO 8601 or epoch ms; without it, now.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="End after so many events.", min=1)] = None,
    stream: Stream = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Show events as they are added, or from a position on, until Ctrl-C; no group is read or changed."""
    if stream is not None and domain:
        raise WrongUsage("--stream and --domain exclude each other; give one of them")
    position = None if start is None else first_id(start)
    choice = Filter(tuple(event_type or ()), job, user)
    complete(_until_signal(_tail(stream, domain or [], choice, position, limit, config, streams_url, output)))


def first_id(text: str) -> str:
    """Return the id after which to read, so that the first entry is the one named or the first since then."""
    from event_router.core.entry_id import before, parse_id

    if text == "0":
        return "0-0"
    if _ID.fullmatch(text):
        if max(parse_id(text)) >= 2**64:
            raise WrongUsage(f"--from {text}: an id has two numbers of 64 bits")
        return before(text)
    found = moment(text, "--from")
    return before(f"{found}-0")


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run until the work ends, or Ctrl-C or SIGTERM, which are the ways to end it and no failure."""
    from event_router.runtime.cancelling import end
    from event_router.runtime.signals import StopRequest, caught_signals

    request = StopRequest()
    with caught_signals(request):
        reading = asyncio.create_task(work)
        stopping = asyncio.create_task(request.graceful.wait())
        await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            await end(stopping)
            await reading
        await end(reading, stopping)


async def _tail(
    only: str | None,
    domains: list[str],
    choice: Filter,
    position: str | None,
    limit: int | None,
    config: Config,
    url: str | None,
    output: Output,
) -> None:
    from event_router.redis_io.entry_fields import decoded_fields

    settings = settings_from(config, url)
    check_served(domains, settings)
    shown = 0
    async with connected(settings) as client:
        named = None if only is None else await existing_streams(client, settings, only)
        domain_of = _domains_of(settings, named, domains)
        canonical = _types_of(settings, domain_of.values())
        filters = _filters(choice, set(domain_of.values()), canonical)
        async for stream, entry_id, flat in _entries(client, list(domain_of), position):
            fields = {_name(name): _value(value) for name, value in decoded_fields(flat).items()}
            domain, written = domain_of[stream], fields.get("type")
            event_type = canonical.get((domain, written), written)
            if not filters[domain].passes(fields, event_type if isinstance(event_type, str) else ""):
                continue
            _show(stream, entry_id, fields, output)
            shown += 1
            if shown == limit:
                return


async def _entries(
    client: Redis, streams: list[str], position: str | None
) -> AsyncIterator[tuple[str, str, list[bytes]]]:
    """Yield (stream, id, names and values) for ever; an outage is waited out, and nothing is left out."""
    from event_router.core.errors import OutcomeUnknown, RedisUnavailable
    from event_router.redis_client.sent_once import SentOnce

    once = SentOnce(client)
    positions: dict[str, str] = {}
    answered = waiting = False
    while True:
        try:
            if not answered:
                await once.call("PING", timeout_s=REPLY_S)
                answered = True
            for stream in streams:
                if stream not in positions:
                    positions[stream] = position or await _last_id(once, stream)
            command = ("XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", *positions, *positions.values())
            reply = await once.call(*command, timeout_s=BLOCK_MS / 1000 + REPLY_S)
        except (RedisUnavailable, OutcomeUnknown) as error:
            if not answered:
                raise RedisUnavailable(str(error)) from error
            if not waiting:
                note(f"waiting for Redis: {reason_of(error)}")
            waiting = True
            await asyncio.sleep(PAUSE_S)
            continue
        if waiting:
            note("Redis answers again")
        waiting = False
        for raw, entries in reply.items() if isinstance(reply, dict) else reply or ():
            stream = raw.decode()
            for raw_id, flat in entries:
                positions[stream] = raw_id.decode()
                yield stream, positions[stream], flat
        sys.stdout.flush()


async def _last_id(once: SentOnce, stream: str) -> str:
    """Return the id of the newest entry: pinned, since `$` would skip what comes between two reads."""
    found = await once.call("XREVRANGE", stream, "+", "-", "COUNT", 1)
    return str(found[0][0].decode()) if found else "0-0"


def _domains_of(settings: Settings, named: list[str] | None, domains: list[str]) -> dict[str, str]:
    """Return the domain of each stream that is read: those that are named, or those of the domains."""
    chosen = domains or served_domains(settings)
    found = {stream: domain for domain in chosen for stream in settings.streams(domain)}
    return found if named is None else {stream: found.get(stream, "") for stream in named}


def _types_of(settings: Settings, domains: Any) -> dict[tuple[str, Any], str]:
    """Return the type that is meant by each that may be written, aliases and prefixes resolved."""
    registry = registry_of(settings)
    return {
        (domain, written): route.type
        for domain in set(domains) & set(registry.domains)
        for written, route in registry.names(domain).items()
    }


def _filters(
    choice: Filter, domains: set[str], canonical: Mapping[tuple[str, Any], str]
) -> dict[str, Filter]:
    """Return the filter of each domain: a type may be given as it may be written, `auth:login`."""
    written = {name for _, name in canonical}
    for event_type in choice.types:
        if written and event_type not in written:
            note(f"no handler takes type {event_type!r}; entries with it are shown as they come")
    return {
        domain: replace(choice, types=tuple(canonical.get((domain, name), name) for name in choice.types))
        for domain in domains
    }


def _show(stream: str, entry_id: str, fields: dict[str, Any], output: Output) -> None:
    if output is Output.json:
        print_json({"stream": stream, "id": entry_id, "fields": fields})
        return
    from event_router.core.timestamps import LAST_MS, format_time

    at = int(entry_id.partition("-")[0])
    rest = {name: value for name, value in fields.items() if name != "type"}
    words = [format_time(at) if at <= LAST_MS else "-", stream, entry_id, str(fields.get("type", "-"))]
    words += [f"{name}={value}" for name, value in rest.items()]
    print(printable("  ".join(words)))


def _name(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _value(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
