"""Messages: what is published, what a subscriber gets, and the bytes between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from event_router.core.channels import Channel
from event_router.core.errors import InvalidEvent, InvalidMessage, UndecodableMessage
from event_router.core.payloads import check_identifier
from event_router.core.timestamps import format_time, shortened, to_milliseconds

MAX_MESSAGE_BYTES = 256 * 1024
"""The largest message unless a publisher or subscriber is told otherwise."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it arrived.

    Attributes:
        channel: where it was published.
        data: what the subscriber's type says; without one the JSON object as a dict, `id` and `timestamp`
            among its members.
        id: the same in every repetition; empty where the publisher gave none.
        timestamp: what the publisher gave, `YYYY-MM-DDTHH:MM:SS.mmmZ` from this package; or empty.
        type: the member `type`, or empty.
        pattern: the pattern it came for, None where the channel itself is subscribed.
    """

    channel: Channel
    data: Any
    id: str = ""
    timestamp: str = ""
    type: str = ""
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages are missing here: whoever keeps a picture of them reads the state again.

    Attributes:
        dropped: how many the full buffer dropped, of all channels.
        reconnected: the connection was lost and stands again: what was published meanwhile is not known.
    """

    dropped: int = 0
    reconnected: bool = False

    def __add__(self, other: Gap) -> Gap:
        return Gap(self.dropped + other.dropped, self.reconnected or other.reconnected)


class _Envelope(msgspec.Struct):
    """What any message may have beside its data."""

    id: Any = ""
    timestamp: Any = ""
    type: Any = ""


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def encode_message(event: object, *, id: str, time_ms: int) -> bytes:
    """Return the JSON of a message: UTF-8, not escaped, always with `id` and `timestamp`.

    Args:
        event: a mapping or a msgspec struct; an `id` and a `timestamp` in it are kept.
        id: the message's id where it has none.
        time_ms: its time in epoch milliseconds where it has none.

    Raises:
        InvalidMessage: it is no JSON object, or its `id` no identifier.
    """
    try:
        members = msgspec.to_builtins(event) if isinstance(event, msgspec.Struct) else event
        if not isinstance(members, Mapping):
            raise InvalidMessage(f"a message must be a JSON object, not {type(event).__name__}")
        body: dict[str, object] = {"id": id, "timestamp": format_time(time_ms), **members}
        body["id"] = check_identifier("id", id if body["id"] in (None, "") else body["id"])
        if body["timestamp"] in (None, ""):
            body["timestamp"] = format_time(time_ms)
        elif isinstance(body["timestamp"], datetime):
            body["timestamp"] = format_time(to_milliseconds(body["timestamp"]))
        return msgspec.json.encode(body)
    except InvalidEvent as error:
        raise InvalidMessage(str(error)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"a message is no JSON object: {error}") from None


class MessageDecoder:
    """From a payload to its data, of any type that msgspec can decode; None for a dict."""

    def __init__(self, data_type: Any = None, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._decoder: Any = None if data_type in (None, dict) else msgspec.json.Decoder(data_type)
        self._max_bytes = max_bytes

    def decode(self, channel: str, pattern: str | None, payload: bytes) -> Message:
        """Return the message.

        Raises:
            UndecodableMessage: it is too large, no JSON object, or not of the type.
        """
        if len(payload) > self._max_bytes:
            raise UndecodableMessage(f"a message of {len(payload)} bytes; at most {self._max_bytes}")
        try:
            if self._decoder is None:
                data: Any = _OBJECT.decode(payload)
                found: dict[str, Any] = data
            else:
                data = self._decoder.decode(payload)
                envelope = _ENVELOPE.decode(payload)
                found = {"id": envelope.id, "timestamp": envelope.timestamp, "type": envelope.type}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UndecodableMessage(f"{error}: {shortened(payload)}") from None
        return Message(
            Channel(channel),
            data,
            _text(found.get("id")),
            _text(found.get("timestamp")),
            _text(found.get("type")),
            pattern,
        )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
