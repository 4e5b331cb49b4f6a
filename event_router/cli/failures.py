"""What an error means to whoever called the command."""

from __future__ import annotations

from event_router.core.errors import ConfigurationError, EventRouterError


class WrongUsage(EventRouterError):
    """The command was called in a way it cannot serve; the message says what to write instead."""


class Failed(EventRouterError):
    """The command was right, but what it was to do did not happen."""


def exit_code(error: EventRouterError) -> int:
    """Return 2 where the user has to change the call or a setting, else 1."""
    return 2 if isinstance(error, ConfigurationError | WrongUsage) else 1
