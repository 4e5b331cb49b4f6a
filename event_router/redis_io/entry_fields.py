"""An entry's fields for those who take them as they are, without a payload type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

Fields = dict[str, Any]


def decoded_fields(flat: Sequence[bytes]) -> Fields:
    """Return the fields in an entry's names and values by name.

    Values are text, those of the members of a JSON object in `data` what they are in JSON; fields beside
    `data` win. What cannot be decoded stays as it came: a value that is not UTF-8 as bytes, a `data` that
    is no JSON object under its own name. Names that are not UTF-8 have surrogate escapes.
    """
    fields: Fields = {
        name.decode("utf-8", "surrogateescape"): _text(value)
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    if "data" not in fields:
        return fields
    try:
        members = msgspec.json.decode(fields["data"])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return fields
    if not isinstance(members, dict):
        return fields
    del fields["data"]
    return members | fields


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
