"""From the settings to the Redis a command talks to, and to the streams it is about."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from event_router.cli.failures import WrongUsage
from event_router.core.errors import OutcomeUnknown, RedisRefused, RedisUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from event_router.core.registry import HandlerRegistry
    from event_router.settings import Settings


def settings_from(config: Path | None, streams_url: str | None = None) -> Settings:
    """Read the settings for a command."""
    from event_router.settings import load

    return load(config, redis_streams_url=streams_url)


def url_of(settings: Settings, *, operator: bool = False) -> str:
    """Return the URL of the streams Redis; `operator` is for commands that change things.

    Raises ConfigurationError when no URL is set and no embedded server runs from the data directory.
    """
    from event_router.embedded import running
    from event_router.settings import SettingsError

    if operator and settings.operator_url is not None:
        return settings.operator_url
    url = settings.redis_streams_url or running(settings.data_dir)
    if url is None:
        raise SettingsError(
            f"no Redis to talk to: set EVENT_ROUTER_REDIS_STREAMS_URL, or start an embedded server in"
            f" {settings.data_dir} with `event-router run --embedded` (`make run`)"
        )
    return url


@contextlib.asynccontextmanager
async def connected(settings: Settings, *, operator: bool = False) -> AsyncIterator[Redis]:
    """Give a client of the streams Redis; its errors leave as one line that names the URL."""
    from redis.exceptions import RedisError

    from event_router.redis_client.address import parse_url
    from event_router.redis_client.connection_problems import connection_problem
    from event_router.redis_client.connections import open_client
    from event_router.redis_client.replies import is_denied, translated

    address = parse_url(url_of(settings, operator=operator))
    client = open_client(address, timeout_s=settings.redis_timeout_s, name="event-router-cli")
    try:
        yield client
    except (RedisUnavailable, RedisRefused, RedisError) as error:
        problem = translated(error)
        kind = RedisUnavailable if isinstance(problem, RedisUnavailable) else RedisRefused
        if kind is RedisUnavailable:
            problem = connection_problem(error, address)
        remedy = _needed_user(settings, operator=operator) if is_denied(problem) else ""
        raise kind(f"{address.redacted}: {problem}{remedy}") from error
    except OutcomeUnknown as error:
        if operator:
            raise OutcomeUnknown(f"{address.redacted}: {error}") from error
        raise RedisUnavailable(f"{address.redacted}: {reason_of(error)}") from error
    finally:
        await client.aclose(close_connection_pool=True)


def reason_of(error: Exception) -> str:
    """Return why there was no reply, for where it matters to nobody whether a command was carried out."""
    return str(error).removesuffix(": it may or may not have been carried out")


def _needed_user(settings: Settings, *, operator: bool) -> str:
    """Return which user lacks the permission and which one has it; rules for both come from `acl`."""
    if not operator:
        return "; the router's user needs it: `event-router acl` has its rule"
    if settings.operator_url is None:
        return "; this needs the operator's user: set EVENT_ROUTER_OPERATOR_URL to a URL with it"
    return "; the operator's user, of EVENT_ROUTER_OPERATOR_URL, needs it: `event-router acl` has its rule"


def complete(command: Coroutine[Any, Any, int | None]) -> None:
    """Run a command to its end and exit with the code it returns."""
    import typer

    if code := asyncio.run(command):
        raise typer.Exit(code)


def registry_of(settings: Settings) -> HandlerRegistry:
    """Return the handlers that the settings name."""
    from event_router.handler_loading import load_handlers

    return load_handlers(settings)


def check_served(domains: Iterable[str], settings: Settings) -> None:
    """Raise WrongUsage for a domain that no handler serves, and that the settings do not name."""
    known = tuple(dict.fromkeys((*registry_of(settings).domains, *settings.domains)))
    for domain in domains:
        if domain not in known:
            raise unknown_domain(domain, known)


def unknown_domain(domain: str, known: Iterable[str]) -> WrongUsage:
    """Return the refusal of a domain that is none of those known."""
    return WrongUsage(
        f"unknown domain {domain!r}; the handlers serve {', '.join(known)};"
        " name others in EVENT_ROUTER_HANDLERS"
    )


def moment(text: str | None, option: str) -> int | None:
    """Return epoch milliseconds of a time given as an option."""
    from event_router.core.timestamps import parse_time

    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise WrongUsage(f"{option}: {error}") from None
