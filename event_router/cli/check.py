"""`event-router check`: what the settings are, where they come from, and which handlers they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from event_router.cli.connecting import registry_of, url_of
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import print_json, print_table

if TYPE_CHECKING:
    from event_router.settings import Settings


def check(config: Config = None, streams_url: StreamsUrl = None, output: Form = Output.text) -> None:
    """Show the settings, where each comes from, and the handlers; exit code 2 when something is wrong.

    It talks to no server: `doctor` does.
    """
    from event_router.settings import load, sources
    from event_router.tracing import check_tracing

    settings = load(config, redis_streams_url=streams_url)
    rows = sources(config, redis_streams_url=streams_url)
    _check_certificates(settings)
    check_tracing(settings.tracing)
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


def _check_certificates(settings: Settings) -> None:
    """Raise SettingsError for a URL that names a file of certificates that cannot be used here."""
    from event_router.core.errors import ConfigurationError
    from event_router.redis_client.address import parse_url
    from event_router.redis_client.connection_problems import check_tls_files
    from event_router.settings import SettingsError, variable

    for name in ("redis_streams_url", "redis_pubsub_url", "operator_url"):
        url: str | None = getattr(settings, name)
        if url is None:
            continue
        try:
            check_tls_files(parse_url(url))
        except ConfigurationError as error:
            raise SettingsError(f"{variable(name)}: {error}") from None


def written(value: Any) -> str:
    """A setting's value as it would be written in the environment."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={part}" for name, part in value.items())
    return "" if value is None else str(value)
