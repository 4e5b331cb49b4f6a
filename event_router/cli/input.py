"""`event-router input`: what jobs ask their users."""

from __future__ import annotations

from typing import Annotated

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.failures import WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import print_json, print_table

group = typer.Typer(help="List what jobs ask their users, or answer it.", no_args_is_help=True)

COLUMNS = ("request_id", "owner", "prompt", "expires_at")


@group.command("list", short_help="List the requests that wait for an answer.")
def list_(
    limit: Annotated[int, typer.Option(help="At most so many requests.", min=1, max=100_000)] = 100,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """List the requests that wait for an answer, those that expire first."""
    complete(_list(limit, config, streams_url, output))


async def _list(limit: int, config: Config, streams_url: str | None, output: Output) -> None:
    from event_router.patterns import HumanInput

    settings = settings_from(config, streams_url)
    async with connected(settings) as client:
        human_input = HumanInput(client, names=settings.key_names, patience_s=settings.redis_timeout_s)
        rows = [request.row() for request in await human_input.pending(limit)]
    if output is Output.json:
        for row in rows:
            print_json(row)
    else:
        print_table(
            [name.replace("_", " ") for name in COLUMNS], [[row[name] for name in COLUMNS] for row in rows]
        )


@group.command(short_help="Answer a request as the user who was asked.")
def answer(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="Which one, such as job-7:1.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON, or text where that is no JSON.")],
    user: Annotated[str, typer.Option("--user", "-u", metavar="ID", help="The user who answers.")],
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Answer a request as the user who was asked; exit code 1 when it cannot be answered any more."""
    complete(_answer(request_id, value, user, config, streams_url, output))


async def _answer(
    request_id: str, text: str, user: str, config: Config, streams_url: str | None, output: Output
) -> None:
    from event_router.core.errors import InvalidRequest, UnknownRequest, ValueMisfit
    from event_router.core.input_request import interpreted, parse_request_id
    from event_router.patterns import HumanInput

    try:
        given = str(parse_request_id(request_id))
    except InvalidRequest as error:
        raise WrongUsage(str(error)) from None
    settings = settings_from(config, streams_url)
    async with connected(settings, operator=True) as client:
        human_input = HumanInput(client, names=settings.key_names, patience_s=settings.redis_timeout_s)
        request = await human_input.get(given)
        if request is None:
            raise UnknownRequest(
                f"there is no request {given}, or no longer; `input list` shows those that wait"
            )
        try:
            value = interpreted(text, request.schema) if request.status == "pending" else None
            await human_input.answer(given, user, value)
        except (ValueMisfit, InvalidRequest) as error:
            raise WrongUsage(f"request {given}: {error}") from None
    if output is Output.json:
        print_json({"request_id": given, "user": user, "value": value})
    else:
        print(f"{given} answered")
