"""`event-router consumers`: who reads in the group, and taking away who does not."""

from __future__ import annotations

from typing import Annotated

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.durations import spoken
from event_router.cli.failures import Failed, WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import print_json, print_table
from event_router.cli.streams import existing_stream, existing_streams

group = typer.Typer(
    help="List the group's consumers, or remove one that holds nothing.", no_args_is_help=True
)

COLUMNS = ("stream", "consumer", "pending", "idle_ms")


@group.command("list", short_help="List consumers and what they hold.")
def list_(
    stream: Annotated[str | None, typer.Argument(metavar="[STREAM]", help="Only this stream.")] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """List consumers, what they hold, and how long ago they were last heard of."""
    complete(_list(stream, config, streams_url, output))


async def _list(only: str | None, config: Config, url: str | None, output: Output) -> None:
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.consumers import consumers_of

    settings = settings_from(config, url)
    async with connected(settings) as client:
        once = SentOnce(client)
        found = [
            (name, *consumer)
            for name in await existing_streams(client, settings, only)
            for consumer in await consumers_of(once, name, settings.group)
        ]
    if output is Output.json:
        for row in found:
            print_json(dict(zip(COLUMNS, row, strict=True)))
        return
    rows = [(stream, name, pending, spoken(idle_ms / 1000)) for stream, name, pending, idle_ms in found]
    print_table(("stream", "consumer", "pending", "last heard of"), rows, numbers=2)


@group.command(short_help="Take a consumer that holds nothing out of the group.")
def remove(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream, such as events:auth.")],
    consumer: Annotated[
        str, typer.Argument(metavar="CONSUMER", help="Its name, as `consumers list` has it.")
    ],
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Take a consumer out of the group, in one step and only if it holds nothing.

    Needs the operator's user (EVENT_ROUTER_OPERATOR_URL).
    """
    if not consumer:
        raise WrongUsage("CONSUMER is empty: write a name as `consumers list` has it")
    complete(_remove(stream, consumer, config, streams_url, output))


async def _remove(stream: str, consumer: str, config: Config, url: str | None, output: Output) -> None:
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.consumers import consumers_of, remove_consumer

    settings = settings_from(config, url)
    async with connected(settings, operator=True) as client:
        once = SentOnce(client)
        stream = await existing_stream(client, settings, stream)
        if not await remove_consumer(once, stream, settings.group, consumer):
            known = await consumers_of(once, stream, settings.group)
            held = next((one.pending for one in known if one.name == consumer), None)
            if held is None:
                raise Failed(
                    f"{settings.group} has no consumer {consumer!r} on {stream}; see `consumers list`"
                )
            raise Failed(
                f"{consumer} holds {held} entries of {stream}, which would be lost with it: a running router"
                f" takes them over after {spoken(settings.claim_min_idle_ms / 1000)};"
                f" see `pending --consumer {consumer}`"
            )
    if output is Output.json:
        print_json({"stream": stream, "consumer": consumer, "removed": True})
    else:
        print(f"{consumer} is removed from {stream}; if it still runs, it comes back with its next read")
