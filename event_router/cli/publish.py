"""`event-router publish`: add events to their streams, refusing what the router would dead-letter."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import (
    complete,
    connected,
    reason_of,
    registry_of,
    settings_from,
    unknown_domain,
)
from event_router.cli.failures import Failed, WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import note, print_json

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from event_router.messaging.preparing import Prepared
    from event_router.settings import Settings

BATCH = 500


class Checker:
    """Decodes events as the router does before they are sent."""

    def __init__(self, settings: Settings) -> None:
        from event_router.core.encoding import Encoder
        from event_router.messaging.preparing import Preparer

        self._registry = registry_of(settings)
        encoder = Encoder(self._registry, max_entry_bytes=settings.max_entry_bytes)
        self._preparer = Preparer(
            encoder, settings.key_names, new_id=None, now_ms=lambda: time.time_ns() // 1_000_000
        )

    def check(self, domain: str, fields: dict[str, Any]) -> Prepared:
        """Return the event ready to be added; raises WrongUsage, which names the field that is wrong."""
        from event_router.core.errors import InvalidEvent

        if domain not in self._registry.domains:
            raise unknown_domain(domain, self._registry.domains)
        try:
            return self._preparer.prepare(domain, fields)
        except InvalidEvent as error:
            raise WrongUsage(f"{domain} event refused: {error}") from None


def publish(
    domain: Annotated[str | None, typer.Argument(metavar="DOMAIN", help="The domain, such as auth.")] = None,
    event_type: Annotated[str | None, typer.Argument(metavar="TYPE", help="The type, such as login.")] = None,
    fields: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="The fields.")] = None,
    file: Annotated[
        str | None, typer.Option(help='JSON lines {"domain": …, "type": …, fields…}; - is standard input.')
    ] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Publish one event, or those of a file: `event-router publish auth login user_id=123`."""
    if file is not None:
        if domain is not None:
            raise WrongUsage("--file brings its own domains and types; leave out the arguments")
        complete(_publish_file(file, config, streams_url, output))
        return
    if domain is None or event_type is None:
        raise WrongUsage("name a domain and a type (`publish auth login user_id=123`), or a --file")
    complete(_publish_one(domain, event_type, _pairs(fields or []), config, streams_url, output))


async def _publish_one(
    domain: str, event_type: str, fields: dict[str, str], config: Config, url: str | None, output: Output
) -> None:
    settings = settings_from(config, url)
    event = Checker(settings).check(domain, {"type": event_type} | fields)
    async with connected(settings, operator=True) as client:
        _print([event], await _add(client, [event]), output)


async def _publish_file(name: str, config: Config, url: str | None, output: Output) -> None:
    settings = settings_from(config, url)
    checker = Checker(settings)
    with _opened(name) as source:
        total = None
        if source.seekable() and name != "-":
            # A file is checked to its end first, so that a mistake in it leaves nothing half done.
            total = sum(1 for _ in _events(checker, source))
            source.seek(0)
        sent = 0
        # On a terminal the bar stands for the ids.
        quiet = output is Output.text and sys.stdout.isatty()
        try:
            async with connected(settings, operator=True) as client:
                with Bar(total if quiet or not sys.stdout.isatty() else None) as advance:
                    for batch in _batches(_events(checker, source)):
                        ids = await _add(client, batch)
                        sent += len(batch)
                        advance(len(batch))
                        if not quiet:
                            _print(batch, ids, output)
        finally:
            if sent or total == 0:
                note(f"{sent} {'event' if sent == 1 else 'events'} published")


async def _add(client: Redis, events: list[Prepared]) -> list[str]:
    """Add a batch in one round trip and return the ids; raises the first error there was."""
    from event_router.core.errors import OutcomeUnknown
    from event_router.redis_client.sent_once import SentOnce

    replies = await SentOnce(client).many([("XADD", event.stream, "*", *event.fields) for event in events])
    failed = [reply for reply in replies if isinstance(reply, Exception)]
    if failed:
        if len(failed) < len(events):
            note(f"{len(events) - len(failed)} of the last {len(events)} events were published")
        unknown = [reply for reply in failed if isinstance(reply, OutcomeUnknown)]
        raise OutcomeUnknown(_perhaps(len(unknown), len(events), unknown[0])) if unknown else failed[0]
    return [reply.decode() for reply in replies]


def _perhaps(unknown: int, count: int, error: Exception) -> str:
    """Return what is to be said where no reply came for some of the events."""
    those, they = ("the event", "it") if count == 1 else (f"{unknown} of {count} events", "they")
    return (
        f"{reason_of(error)}: {those} may have been published or not; with a field `id` {they} can be"
        " published again and count once"
    )


def _print(events: list[Prepared], ids: list[str], output: Output) -> None:
    for event, entry_id in zip(events, ids, strict=True):
        if output is Output.json:
            print_json({"stream": event.stream, "id": entry_id})
        else:
            print(event.stream, entry_id)


def _pairs(arguments: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise WrongUsage(f"{argument!r} is no field; write name=value")
        if name in pairs or name == "type":
            raise WrongUsage(f"field {name!r} is given twice")
        pairs[name] = value
    return pairs


def _opened(name: str) -> IO[str]:
    if name == "-":
        return open(sys.stdin.fileno(), encoding="utf-8", closefd=False)
    try:
        return open(name, encoding="utf-8")  # noqa: PTH123 - closed by the caller
    except OSError as error:
        raise WrongUsage(f"--file {name}: {error.strerror}") from None


def _events(checker: Checker, lines: Iterable[str]) -> Iterator[Prepared]:
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _event(checker, line, number)
    except UnicodeDecodeError:
        raise Failed(f"the file is not UTF-8 near line {number + 1}") from None


def _event(checker: Checker, line: str, number: int) -> Prepared:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"line {number} is no JSON: {error}") from None
    if not isinstance(fields, dict) or not isinstance(domain := fields.pop("domain", None), str):
        raise WrongUsage(f'line {number} is no event: write {{"domain": "auth", "type": "login", …}}')
    try:
        return checker.check(domain, fields)
    except WrongUsage as error:
        raise WrongUsage(f"line {number}: {error}") from None


def _batches(events: Iterator[Prepared]) -> Iterator[list[Prepared]]:
    batch: list[Prepared] = []
    try:
        for event in events:
            batch.append(event)
            if len(batch) == BATCH:
                yield batch
                batch = []
    except (WrongUsage, Failed):
        # What stands before a wrong line of standard input has been accepted: send it, then say so.
        if batch:
            yield batch
        raise
    if batch:
        yield batch


class Bar:
    """A bar on standard error when that is a terminal and the number of events is known."""

    def __init__(self, total: int | None) -> None:
        self._bar: Any = None
        if total is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            # Redirected, each line of data would be laid out by rich: 100,000 took a minute.
            console = Console(stderr=True)
            self._bar = Progress(
                console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._task = self._bar.add_task("publishing", total=total)

    def __enter__(self) -> Any:
        if self._bar is None:
            return lambda count: None
        self._bar.start()
        return lambda count: self._bar.advance(self._task, count)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
