"""`event-router state`: what the handlers have written."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.failures import Failed, WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import print_json, print_table

group = typer.Typer(no_args_is_help=True)


@group.callback()
def _group() -> None:
    """Read the state that the handlers keep."""  # without a callback typer merges a group of one command


@group.command(short_help="Show the fields of an entity or of any hash.")
def get(
    entity: Annotated[
        str | None, typer.Argument(metavar="ENTITY", help="The kind of entity, such as user.")
    ] = None,
    entity_id: Annotated[str | None, typer.Argument(metavar="ID", help="Which one, such as 123.")] = None,
    key: Annotated[str | None, typer.Option(help="Any key instead, such as stats:daily:2026-01-31.")] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Show the fields of an entity or of any hash; exit code 1 when there is none."""
    if (key is None) == (entity is None or entity_id is None) or (key is not None and entity is not None):
        raise WrongUsage(
            "name an entity and its id (`state get user 123`), or a key (`--key stats:user:123`)"
        )
    complete(_get(key, (entity or "", entity_id or ""), config, streams_url, output))


async def _get(
    key: str | None, entity: tuple[str, str], config: Config, streams_url: str | None, output: Output
) -> None:
    from event_router.core.errors import StateError
    from event_router.redis_io.dead_letter_format import text

    settings = settings_from(config, streams_url)
    try:
        name = (key if key is not None else settings.key_names.entity(*entity)).encode(
            "utf-8", "surrogateescape"
        )
    except StateError as error:
        raise WrongUsage(str(error)) from None
    async with connected(settings) as client:
        found: Any = await client.type(name)
        kind = text(found)
        if kind == "none":
            job = settings.job_state_template.replace("{job_id}", entity[1])
            hint = f"; a job's state is a key of its domain: --key {job}" if entity[0] == "job" else ""
            raise Failed(f"there is no {text(name)}{hint}")
        if kind == "string":
            found = {b"value": await client.get(name)}
        elif kind == "hash":
            found = await client.hgetall(name)
        else:
            raise Failed(f"{text(name)} is a {kind}; only hashes and strings can be shown")
    fields = {text(field): text(value) for field, value in found.items()}
    if output is Output.json:
        print_json(fields)
    else:
        print_table(("field", "value"), sorted(fields.items()))
