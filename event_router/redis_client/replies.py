"""What Redis's error replies mean to the router, decided in one place.

redis-py maps some error codes to classes and leaves the rest as bare `ResponseError`s whose text
begins with the code; both forms are recognised here and nowhere else.
"""

from __future__ import annotations

import re

from redis import exceptions

from event_router.core.errors import EventRouterError, NoGroup, RedisDenied, RedisRefused, RedisUnavailable

CONNECTION_LOST: tuple[type[BaseException], ...] = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.InvalidResponse,
    OSError,
    EOFError,
)
"""No usable reply will come on this connection."""

_PASSING_CLASSES = (
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.AuthenticationWrongNumberOfArgsError,
)
_PASSING_CODES = (
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "BUSY ",
    "OOM",
    "UNBLOCKED",
    "TRYAGAIN",
    "NOAUTH",
    "WRONGPASS",
    "ERR max number of clients",
    "ERR MULTI is not allowed",
)
_DENIED = (
    "NOPERM",
    "ACL failure in script",  # Valkey's NOPERM inside a script
    "The user executing the script can't",  # Redis's
)
_NO_GROUP_KEY = re.compile(r"No such key '(.*?)' or consumer group")


class NoScript(EventRouterError):
    """The server does not know the script; it must be sent whole."""


def translated(error: BaseException) -> EventRouterError:
    """Return the router's error for one raised by redis-py or the socket.

    Refusals that pass by themselves or by an operator's hand (out of memory, read-only, …) are
    `RedisUnavailable`, a missing permission `RedisDenied`: they are no event's fault and use up no attempt.
    """
    if isinstance(error, EventRouterError):
        return error
    if isinstance(error, exceptions.NoPermissionError) or str(error).startswith(_DENIED):
        return RedisDenied(_described(error))
    if isinstance(error, (*_PASSING_CLASSES, *CONNECTION_LOST)):
        return RedisUnavailable(_described(error))
    if isinstance(error, exceptions.NoScriptError):
        return NoScript(str(error))
    text = str(error)
    if isinstance(error, RuntimeError) and "handler is closed" in text:  # uvloop's word for a lost connection
        return RedisUnavailable("the connection was lost")
    if text.startswith(_PASSING_CODES):
        return RedisUnavailable(text)
    if text.startswith("NOGROUP") or "NOGROUP" in text[:80]:
        found = _NO_GROUP_KEY.search(text)
        return NoGroup(found.group(1) if found else "")
    if text.startswith("NOSCRIPT"):
        return NoScript(text)
    return RedisRefused(text or type(error).__name__)


def is_denied(error: BaseException) -> bool:
    """Whether the user lacks a permission for the command, or for one in a script."""
    if isinstance(error, exceptions.NoPermissionError):
        return True
    return any(code in str(error)[:200] for code in _DENIED)


def _described(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    code = getattr(error, "status_code", None)
    return f"{code} {text}" if code and code != "ERR" and not text.startswith(code) else text
