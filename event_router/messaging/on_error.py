"""What an error means to a subscriber."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from event_router.core.errors import ConfigurationError

Action = Literal["retry", "skip", "stop"]
Decide = Action | Callable[[Exception], Action]

_POSSIBLE = {
    "connection": ("retry", "stop"),
    "undecodable": ("skip", "stop"),
    "handler": ("retry", "skip", "stop"),
}


@dataclass(frozen=True, slots=True)
class OnError:
    """What happens on an error: an action, or a function that takes the error and returns one.

    Attributes:
        connection: lost or refused. `retry` connects anew for ever, with growing pauses up to 5 s; `stop`
            raises.
        undecodable: a message that is no JSON, too large or of another type. `skip` or `stop`.
        handler: it raised, or took too long. `retry` runs it up to `attempts` times, after 100 and 200 ms,
            and then skips; `skip` goes on with the next message; `stop` raises.
        attempts: runs of a handler for one message at most.
    """

    connection: Decide = "retry"
    undecodable: Decide = "skip"
    handler: Decide = "skip"
    attempts: int = 3

    def __post_init__(self) -> None:
        for what in _POSSIBLE:
            decide = getattr(self, what)
            if not callable(decide):
                _check(what, decide)

    def action(self, what: Literal["connection", "undecodable", "handler"], error: Exception) -> Action:
        """Return the action. Raises ConfigurationError for one that is not possible there."""
        decide: Decide = getattr(self, what)
        return _check(what, decide(error) if callable(decide) else decide)


def _check(what: str, action: Any) -> Action:
    if action not in _POSSIBLE[what]:
        raise ConfigurationError(
            f"on_error: {what} cannot be {action!r}; possible are {', '.join(_POSSIBLE[what])}"
        )
    found: Action = action
    return found
