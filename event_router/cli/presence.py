"""`event-router presence`: who is online."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.failures import WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from event_router.patterns.presence import Presence, UserPresence

COLUMNS = ("user_id", "status", "last_seen", "connections")


def presence(
    user_id: Annotated[str | None, typer.Argument(metavar="USER", help="Only this user.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many are online.")] = False,
    after: Annotated[str | None, typer.Option(help="Begin after this user id.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many users.", min=1)] = 1000,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """List who is online, away or busy, by user id; or show one user."""
    if user_id is not None and (count or after is not None):
        raise WrongUsage("--count and --after are about all users: leave USER out")
    if count and after is not None:
        raise WrongUsage("--count counts everybody: leave --after out")
    complete(_presence(user_id, count, after, limit, config, streams_url, output))


async def _presence(
    user_id: str | None,
    count: bool,
    after: str | None,
    limit: int,
    config: Path | None,
    url: str | None,
    output: Output,
) -> None:
    from event_router.core.errors import StateError
    from event_router.patterns.presence import Presence

    settings = settings_from(config, url)
    async with connected(settings) as client:
        known = Presence(client, ttl_s=settings.presence_ttl_s, timeout_s=settings.redis_timeout_s)
        try:
            if count:
                number = await known.count()
                print_json({"count": number}) if output is Output.json else print(number)
            elif user_id is not None:
                _show([await known.get(user_id)], output)
            else:
                await _list(known, after, limit, output)
        except StateError as error:
            raise WrongUsage(str(error)) from None


async def _list(known: Presence, after: str | None, limit: int, output: Output) -> None:
    from event_router.patterns.presence import MAX_PAGE

    found: list[UserPresence] = []
    shown = 0
    while True:
        page = await known.online_users(after=after, limit=min(MAX_PAGE, limit - shown))
        shown += len(page.users)
        after = page.next
        if output is Output.json:
            _show(page.users, output)
        else:
            found += page.users
        if after is None or shown >= limit:
            break
    if output is Output.text:
        _show(found, output)
    if after is not None:
        note(f"{shown} of {await known.count()}; the next: --after {after}")


def _show(users: list[UserPresence] | tuple[UserPresence, ...], output: Output) -> None:
    rows = [_row(user) for user in users]
    if output is Output.json:
        for row in rows:
            print_json(row)
    else:
        cells = [[row[name] for name in COLUMNS] for row in rows]
        print_table([name.replace("_", " ") for name in COLUMNS], cells, numbers=1)


def _row(user: UserPresence) -> dict[str, Any]:
    from event_router.core.timestamps import format_time, to_milliseconds

    seen = None if user.last_seen is None else format_time(to_milliseconds(user.last_seen))
    row = {"user_id": user.user_id, "status": user.status, "last_seen": seen}
    return row | {"connections": user.connections}
