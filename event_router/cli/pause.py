"""`event-router pause` and `resume`: have every router leave a stream alone for a while."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.durations import parse_duration, spoken
from event_router.cli.failures import WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import note, print_json, printable
from event_router.cli.streams import named_stream, served_stream

if TYPE_CHECKING:
    from event_router.core.pause import Pause

LONGEST_S = 30 * 86_400
LONGEST_REASON = 500

StreamName = Annotated[str, typer.Argument(metavar="STREAM", help="The stream, such as events:auth.")]


def pause(
    stream: StreamName,
    reason: Annotated[str, typer.Option(help="Why; everybody who looks is told.")],
    length: Annotated[str, typer.Option("--for", help="For how long: 90s, 30m, 1h30m, 2d.")] = "1h",
    by: Annotated[str | None, typer.Option(help="Who pauses it; without it, user and host.")] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Have all routers stop reading a stream within about a second; what they have in hand they finish.

    Its entries wait in Redis and nothing is lost. It goes on by itself when the time is over, or by
    `resume`. A second pause replaces the first. Needs the operator's user (EVENT_ROUTER_OPERATOR_URL).
    """
    for_ms = parse_duration(length, "--for", longest_s=LONGEST_S)
    for option, text in (("--reason", reason), ("--by", by)):
        if text is not None and not 0 < len(text.strip()) <= LONGEST_REASON:
            raise WrongUsage(f"{option}: write 1 to {LONGEST_REASON} characters")
    complete(_pause(stream, reason.strip(), for_ms, by or whoever(), config, streams_url, output))


async def _pause(
    stream: str, reason: str, for_ms: int, by: str, config: Config, url: str | None, output: Output
) -> None:
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.pauses import StoredPauses

    settings = settings_from(config, url)
    stream = served_stream(settings, stream)
    async with connected(settings, operator=True) as client:
        pauses = StoredPauses(SentOnce(client), settings.group)
        made, before = await pauses.pause(stream, reason=reason, by=by, for_ms=for_ms)
    if before is not None:
        note(f"replaces the pause by {before.by or 'somebody'}: {before.reason}")
    if output is Output.json:
        print_json({"stream": stream} | as_row(made))
    else:
        print(f"{stream} is paused for {spoken(for_ms / 1000)}, until {as_row(made)['until']}")


def resume(
    stream: StreamName, config: Config = None, streams_url: StreamsUrl = None, output: Form = Output.text
) -> None:
    """End a pause: routers read the stream again within about a second.

    Needs the operator's user (EVENT_ROUTER_OPERATOR_URL).
    """
    complete(_resume(stream, config, streams_url, output))


async def _resume(stream: str, config: Config, url: str | None, output: Output) -> None:
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.pauses import StoredPauses

    settings = settings_from(config, url)
    stream = named_stream(settings, stream)
    async with connected(settings, operator=True) as client:
        before = await StoredPauses(SentOnce(client), settings.group).resume(stream)
    if before is None:
        served_stream(settings, stream)
    if output is Output.json:
        print_json({"stream": stream, "was_paused": before is not None})
    elif before is None:
        print(f"{stream} was not paused")
    else:
        print(printable(f"{stream} goes on; it was paused by {before.by or 'somebody'}: {before.reason}"))


def as_row(pause: Pause) -> dict[str, Any]:
    """Return a pause as it is printed: reason, by, since and until, times in ISO 8601."""
    from event_router.core.timestamps import LAST_MS, format_time

    def time(milliseconds: int | None) -> str | None:
        known = milliseconds is not None and 0 <= milliseconds <= LAST_MS
        return format_time(milliseconds) if known and milliseconds is not None else None

    since, until = time(pause.since_ms), time(pause.until_ms)
    return {"reason": pause.reason, "by": pause.by, "since": since, "until": until}


def whoever() -> str:
    """Return who runs the command: the user, or its number in a container that does not know its name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{os.environ.get('POD_NAME') or socket.gethostname()}"
