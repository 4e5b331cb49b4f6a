"""An entry's fields for those who take them as they are, without a payload type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from event_router.core.decoding import opened
from event_router.core.errors import InvalidEvent

Fields = dict[str, Any]


def decoded_fields(flat: Sequence[bytes]) -> Fields:
    """Return the fields in an entry's names and values by name.

    Values are text, those of the members of a JSON object in `data` what they are in JSON; fields beside
    `data` win. A CloudEvent gives its payload's members, and `type`, `id`, `source`, `timestamp` and
    `traceparent`. What cannot be decoded stays as it came: a value that is not UTF-8 as bytes, a `data`
    that is no JSON object under its own name. Names that are not UTF-8 have surrogate escapes.
    """
    values = dict(zip(flat[::2], flat[1::2], strict=True))
    try:
        beside, head, payload = opened(values)
    except InvalidEvent:
        return _text(values)
    if head is None:
        return _text(values)
    if head is payload:
        fields = _text(beside)
        del fields["data"]
        return head | fields
    return (payload or {}) | _text(beside) | head


def _text(values: dict[bytes, bytes]) -> Fields:
    return {name.decode("utf-8", "surrogateescape"): _value(value) for name, value in values.items()}


def _value(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
