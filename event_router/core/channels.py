"""The channels of the fan-out: their names, and the template each one belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from event_router.core.errors import ConfigurationError, InvalidEvent, InvalidMessage
from event_router.core.payloads import check_identifier
from event_router.core.timestamps import shortened

MAX_CHANNEL_BYTES = 1024
OTHER = "other"
"""The label of a channel that belongs to no template."""


class Channel(str):
    """The name of one channel, taken as it is: an id in it that holds `*` makes it no pattern."""

    __slots__ = ()


NOTIFICATIONS = Channel("notifications")
"""Notifications of all users."""
PRESENCE = Channel("presence")
"""Users that come and go."""
UPDATES = Channel("updates")
"""Live updates: data, configuration, status."""


@dataclass(frozen=True, slots=True)
class Channels:
    """Names of channels. Whatever identifies something is text of 1 to 512 bytes without control characters.

    Attributes:
        job_template: the channel of a job's steps, from `{job_id}`; the router's `JOB_CHANNEL_TEMPLATE`.
    """

    job_template: str = "sse:events:{job_id}"
    _templates: tuple[tuple[str, re.Pattern[str]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if "{job_id}" not in self.job_template:
            raise ConfigurationError(f"job channel template {self.job_template!r} has no {{job_id}}")
        # A job's channels come first: `events:sse:{job_id}` is one too, and no event type.
        names = (self.job_template, "user:{user_id}", "chat:{room_id}", "events:{type}")
        object.__setattr__(self, "_templates", tuple((name, _matching(name)) for name in names))

    def job(self, job_id: str | int) -> Channel:
        """Return the channel of a job's steps. Raises InvalidMessage for what is no identifier."""
        return Channel(self.job_template.replace("{job_id}", _identifier("job_id", job_id)))

    def user(self, user_id: str | int) -> Channel:
        """Return `user:{user_id}`. Raises InvalidMessage for what is no identifier."""
        return Channel(f"user:{_identifier('user_id', user_id)}")

    def room(self, room_id: str | int) -> Channel:
        """Return `chat:{room_id}`. Raises InvalidMessage for what is no identifier."""
        return Channel(f"chat:{_identifier('room_id', room_id)}")

    def event(self, event_type: str) -> Channel:
        """Return `events:{type}`. Raises InvalidMessage for what is no identifier."""
        return Channel(f"events:{_identifier('type', event_type)}")

    def label(self, channel: str) -> str:
        """Return the template a channel or pattern belongs to, or `other`: fit for a metric's label."""
        if channel in (NOTIFICATIONS, PRESENCE, UPDATES):
            return str(channel)
        return next((name for name, template in self._templates if template.fullmatch(channel)), OTHER)


def _matching(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{\w+\}", template)
    return re.compile(".+".join(map(re.escape, pieces)), re.DOTALL)


def _identifier(name: str, value: object) -> str:
    try:
        return check_identifier(name, value)
    except InvalidEvent as error:
        raise InvalidMessage(str(error)) from None


def check_channel(name: object) -> str:
    """Return the name of a channel or pattern as it goes to Redis; `events.login` means `events:login`.

    Raises:
        InvalidMessage: it is no text, empty, longer than 1,024 bytes, or has control characters.
    """
    if not isinstance(name, str):
        raise InvalidMessage(f"a channel must be text, not {type(name).__name__}")
    if not name:
        raise InvalidMessage("a channel must have a name; it is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidMessage(f"channel {shortened(name)} is no valid Unicode") from None
    if size > MAX_CHANNEL_BYTES:
        raise InvalidMessage(f"channel {shortened(name)} has {size} bytes; at most {MAX_CHANNEL_BYTES}")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        raise InvalidMessage(f"channel {shortened(name)} has control characters")
    if name.startswith("events."):
        name = type(name)(f"events:{name[7:]}")
    return name
