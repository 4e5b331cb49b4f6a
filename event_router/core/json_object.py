"""JSON objects in the fields of entries."""

from __future__ import annotations

from typing import Any

import msgspec

from event_router.core.errors import InvalidEvent


def json_object(field: str, raw: bytes | str) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        InvalidEvent: it is no JSON, nested too deeply, or no object; names the field.
    """
    try:
        found = msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidEvent(f"field {field!r} is JSON nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidEvent(f"field {field!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidEvent(f"field {field!r} must be a JSON object")
    return found
