"""`event-router status` and `pending`: how far the group is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.options import Config, Form, Output, Stream, StreamsUrl
from event_router.cli.output import print_json, print_table, printable
from event_router.cli.pause import as_row
from event_router.cli.streams import existing_streams

if TYPE_CHECKING:
    from redis.asyncio import Redis

COLUMNS = ("stream", "group", "length", "lag", "lag_seconds", "pending", "consumers", "dead_letters")
PENDING_COLUMNS = ("stream", "id", "consumer", "idle_ms", "deliveries")
PAGE = 1000


def status(
    stream: Stream = None, config: Config = None, streams_url: StreamsUrl = None, output: Form = Output.text
) -> None:
    """Show each stream with its lag, its pending entries and its dead letters."""
    complete(_status(stream, config, streams_url, output))


async def _status(only: str | None, config: Config, streams_url: str | None, output: Output) -> None:
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.lag import inspect
    from event_router.redis_io.pauses import StoredPauses

    settings = settings_from(config, streams_url)
    async with connected(settings) as client:
        streams = await existing_streams(client, settings, only)
        found = [await inspect(client, stream, settings.group) for stream in streams]
        pauses = await StoredPauses(SentOnce(client), settings.group).read(streams)
    paused = {stream: as_row(pause) for stream, pause in pauses.items()}
    if output is Output.json:
        lines = [
            {name: getattr(row, name) for name in COLUMNS}
            | ({"paused": paused[row.stream]} if row.stream in paused else {})
            for row in found
        ]
        print_json({"streams": lines})
        return
    rows = [[_known(getattr(row, name)) for name in COLUMNS] for row in found]
    print_table([name.replace("_", " ") for name in COLUMNS], rows, numbers=6)
    for stream, pause in paused.items():
        until = pause["until"] or f"`event-router resume {stream}`"
        print(printable(f"{stream} is paused until {until}, by {pause['by']}: {pause['reason']}"))


def pending(
    stream: Stream = None,
    consumer: Annotated[str | None, typer.Option(help="Only what this consumer holds.")] = None,
    min_idle_ms: Annotated[int, typer.Option(help="Only what is idle for at least this long.", min=0)] = 0,
    limit: Annotated[int | None, typer.Option(help="At most so many entries.", min=1)] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """List the entries that were delivered and are not settled."""
    complete(_pending(stream, (min_idle_ms, consumer), limit, config, streams_url, output))


async def _pending(
    only: str | None,
    choice: tuple[int, str | None],
    limit: int | None,
    config: Config,
    streams_url: str | None,
    output: Output,
) -> None:
    settings = settings_from(config, streams_url)
    rows: list[tuple[Any, ...]] = []
    count = 0
    async with connected(settings) as client:
        for stream in await existing_streams(client, settings, only):
            async for row in _pending_of(client, stream, settings.group, choice):
                if limit is not None and count == limit:
                    break
                count += 1
                if output is Output.json:
                    print_json(dict(zip(PENDING_COLUMNS, row, strict=True)))
                else:
                    rows.append(row)
    if output is Output.text:
        print_table([name.replace("_", " ") for name in PENDING_COLUMNS], rows, numbers=2)


async def _pending_of(
    client: Redis, stream: str, group: str, choice: tuple[int, str | None]
) -> AsyncIterator[tuple[str, str, str, int, int]]:
    from redis.exceptions import ResponseError

    from event_router.redis_io.dead_letter_format import text

    min_idle_ms, consumer = choice
    start = "-"
    while True:
        try:
            page: Any = await client.xpending_range(
                stream, group, start, "+", PAGE, consumername=consumer, idle=min_idle_ms or None
            )
        except ResponseError as error:
            if str(error).startswith("NOGROUP"):
                return
            raise
        for row in page:
            yield (
                stream,
                text(row["message_id"]),
                text(row["consumer"]),
                row["time_since_delivered"],
                row["times_delivered"],
            )
        if len(page) < PAGE:
            return
        start = f"({text(page[-1]['message_id'])}"


def _known(value: object) -> object:
    if value is None:
        return "unknown"
    return f"{value:.1f}" if isinstance(value, float) else value
