"""`event-router check`: what the settings are, where they come from, and which handlers they name."""

from __future__ import annotations

from typing import Any

from event_router.cli.connecting import registry_of, url_of
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import print_json, print_table


def check(config: Config = None, streams_url: StreamsUrl = None, output: Form = Output.text) -> None:
    """Show the settings, where each comes from, and the handlers; exit code 2 when something is wrong."""
    from event_router.settings import load, sources

    settings = load(config, redis_streams_url=streams_url)
    rows = sources(config, redis_streams_url=streams_url)
    registry = registry_of(settings)
    routes = [route for domain in registry.domains for route in registry.routes(domain).values()]
    if output is Output.json:
        found: dict[str, Any] = {
            "settings": [
                {"name": row.name, "variable": row.variable, "value": row.value, "source": row.source}
                for row in rows
            ],
            "handlers": [
                {"domain": route.domain, "type": route.type, "handler": route.handler} for route in routes
            ],
        }
        print_json(found)
    else:
        print_table(
            ("setting", "value", "from"), [(row.variable, written(row.value), row.source) for row in rows]
        )
        print()
        print_table(
            ("domain", "type", "handler"), [(route.domain, route.type, route.handler) for route in routes]
        )
    if not settings.embedded:
        url_of(settings)


def written(value: Any) -> str:
    """A setting's value as it would be written in the environment."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={part}" for name, part in value.items())
    return "" if value is None else str(value)
