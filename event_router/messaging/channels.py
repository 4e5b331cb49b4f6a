"""Channels and patterns as publishers and subscribers name them."""

from __future__ import annotations

from event_router.core.channels import NOTIFICATIONS as NOTIFICATIONS
from event_router.core.channels import PRESENCE as PRESENCE
from event_router.core.channels import UPDATES as UPDATES
from event_router.core.channels import Channel as Channel
from event_router.core.channels import Channels as Channels
from event_router.core.channels import check_channel
from event_router.core.errors import InvalidMessage

MAX_STARS = 8
"""Redis matches every pattern with every published channel, and each `*` multiplies the work."""


class Pattern(str):
    """A glob of Redis that stands for every channel it matches: `events:*`, `chat:room-?`."""

    __slots__ = ()


def channel_or_pattern(name: str) -> Channel | Pattern:
    """Return what a subscriber's name means: a pattern where it has `*`, `?` or `[`, else a channel.

    A `Channel`, such as `Channels().user(user_id)`, is one channel whatever is in it. `events.*` means
    `events:*`.

    Raises:
        InvalidMessage: the name cannot be one, or the pattern is not whole.
    """
    checked = check_channel(name)
    if isinstance(checked, Channel) or not any(character in checked for character in "*?["):
        return Channel(checked)
    _check_pattern(checked)
    return Pattern(checked)


def _check_pattern(pattern: str) -> None:
    inside = escaped = False
    stars = 0
    for character in pattern:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif inside:
            inside = character != "]"
        elif character == "[":
            inside = True
        elif character == "*":
            stars += 1
    if inside:
        raise InvalidMessage(f"pattern {pattern!r} has a [ that is not closed; write \\[ for the character")
    if escaped:
        raise InvalidMessage(f"pattern {pattern!r} ends in a backslash, which escapes nothing")
    if stars > MAX_STARS:
        raise InvalidMessage(f"pattern {pattern!r} has {stars} stars; at most {MAX_STARS}")
