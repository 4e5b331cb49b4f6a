"""`event-router run`: the router itself."""

from __future__ import annotations

from typing import Annotated

import typer

from event_router.cli.failures import WrongUsage
from event_router.cli.options import Config, StreamsUrl


def run(
    config: Config = None,
    streams_url: StreamsUrl = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start an embedded server; for development and tests.")
    ] = False,
) -> None:
    """Route events until stopped: the first signal lets what was begun finish, the second does not wait."""
    if embedded and streams_url is not None:
        raise WrongUsage("--embedded and --streams-url exclude each other; give one of them")
    from event_router import app
    from event_router.settings import load

    settings = load(config, redis_streams_url=streams_url, embedded=embedded or None)
    raise typer.Exit(app.run(settings))
