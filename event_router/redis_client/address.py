"""Where a Redis is: URLs of a server, a socket or a Sentinel group, and how to show them safely."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.connection import parse_url as parse_server_url

_PASSWORD = re.compile(r"(?<=://)([^/@]*?):([^/]*)@")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)


class InvalidURL(ValueError):
    """The URL cannot be used; the message says why in one line, without the password."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed Redis URL.

    Attributes:
        redacted: the URL without its password, for logs and errors.
        options: keyword arguments for a redis-py connection pool.
        sentinels: (host, port) of each Sentinel; empty when the URL names the server itself.
        service: the name of the primary that the Sentinels watch.
    """

    redacted: str
    options: Mapping[str, Any] = field(repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    tls: bool = False


def redact(url: str) -> str:
    """Return the URL with every password in it replaced by `***`."""
    shown = _PASSWORD.sub(r"\1:***@", url)
    return _QUERY_PASSWORD.sub(r"\1***", shown)


def parse_url(url: str) -> RedisAddress:
    """Parse `redis://`, `rediss://`, `unix://` or `redis+sentinel://h1:26379,h2:26379/service/db`.

    `rediss+sentinel://` speaks TLS to the Sentinels and the servers. Options of redis-py may follow
    as a query string. User and password in a Sentinel URL are those of the Redis servers; the
    Sentinels' own go into the query as `sentinel_username` and `sentinel_password`.

    Raises:
        InvalidURL: the URL cannot be used.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme in ("redis", "rediss", "unix"):
            options: dict[str, Any] = dict(parse_server_url(url))
            _check_options(url, options, options.get("connection_class", Connection))
            return RedisAddress(redact(url), options, tls=scheme == "rediss")
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _parse_sentinel_url(url, tls=scheme.startswith("rediss"))
    except InvalidURL:
        raise
    except ValueError as error:
        raise InvalidURL(f"{redact(url)!r} is not a usable Redis URL: {redact(str(error))}") from None
    raise InvalidURL(
        f"{redact(url)!r} is not a usable Redis URL: it must begin with redis://, rediss://, unix:// "
        "or redis+sentinel://"
    )


def _parse_sentinel_url(url: str, *, tls: bool) -> RedisAddress:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    sentinels = tuple(_host_and_port(host, url) for host in hosts.split(",") if host)
    path = [unquote(piece) for piece in parts.path.split("/") if piece]
    if not sentinels or not 1 <= len(path) <= 2:
        raise InvalidURL(
            f"{redact(url)!r} is not a usable Sentinel URL: write redis+sentinel://host:26379,host:26379/service/0"
        )
    # The query string has redis-py's own options and their types: let it parse them.
    options = dict(parse_server_url(f"{'rediss' if tls else 'redis'}://server/0?{parts.query}"))
    options.pop("host", None)
    options.pop("connection_class", None)
    own = ("sentinel_username", "sentinel_password")
    servers = {name: value for name, value in options.items() if name not in own}
    _check_options(url, servers, SSLConnection if tls else Connection)
    options["db"] = _database(path[1], url) if len(path) == 2 else 0
    if credentials:
        username, _, password = credentials.partition(":")
        options |= {"username": unquote(username) or None, "password": unquote(password) or None}
    return RedisAddress(redact(url), options, sentinels, path[0], tls)


def _check_options(url: str, options: Mapping[str, Any], connection_class: type) -> None:
    """Raise InvalidURL for an option that redis-py would meet only when it connects."""
    of_pools = ("connection_class", "max_connections")
    try:
        connection_class(**{name: value for name, value in options.items() if name not in of_pools})
    except TypeError as error:
        found = _UNEXPECTED.search(str(error))
        if found is None:
            raise
        plain = found[1].startswith("ssl_") and not issubclass(connection_class, SSLConnection)
        problem = "is for TLS: begin with rediss" if plain else "is none that redis-py knows"
        raise InvalidURL(f"{redact(url)!r} is not a usable Redis URL: {found[1]!r} {problem}") from None


def _host_and_port(text: str, url: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        return text.strip("[]"), 26379
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidURL(f"{redact(url)!r} is not a usable Sentinel URL: {port!r} is no port")
    return host.strip("[]"), int(port)


def _database(text: str, url: str) -> int:
    if not text.isdecimal():
        raise InvalidURL(f"{redact(url)!r} is not a usable Sentinel URL: {text!r} is no database number")
    return int(text)
