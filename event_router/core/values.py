"""The text under which values are stored, and times to live."""

from __future__ import annotations

from datetime import date, datetime

from event_router.core.errors import StateError
from event_router.core.timestamps import format_day, format_time, shortened, to_milliseconds

MAX_TTL_MS = 100 * 366 * 24 * 3_600_000


def encode_value(value: object) -> str:
    """Return the text under which a value is stored.

    Datetimes become `YYYY-MM-DDTHH:MM:SS.mmmZ`, dates `YYYY-MM-DD`, booleans `true` and `false`.

    Raises:
        StateError: the value has no text form; None is not one, `delete` a field instead.
    """
    if type(value) is str:
        if not value.isascii():
            text_bytes(value)
        return value
    if type(value) is int:
        return str(value)
    if type(value) is date:
        return format_day(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return format_time(to_milliseconds(value))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return encode_value(str.__str__(value))
    if isinstance(value, int):
        return int.__repr__(value)  # an enum's own says its name
    if isinstance(value, float):
        return float.__repr__(value)
    raise StateError(
        f"{shortened(value)} cannot be stored: it is {type(value).__name__}, not text or a number"
    )


def text_bytes(text: str) -> bytes:
    """Return the bytes of a text. Raises StateError for half a surrogate pair, which has none."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise StateError(f"{shortened(text)} cannot be stored: it is no valid Unicode") from None


def check_names(*names: object) -> None:
    """Raise StateError for what cannot name a key, a field or a stream."""
    for name in names:
        if not isinstance(name, str):
            raise StateError(f"{shortened(name)} is no name: it is {type(name).__name__}, not text")
        if not name.isascii():
            text_bytes(name)


def ttl_in_ms(seconds: float, what: str) -> int:
    """Return a time to live in milliseconds.

    Raises:
        StateError: it is below a millisecond, which would delete, or above a hundred years; names `what`.
    """
    if not 0.001 <= seconds <= MAX_TTL_MS / 1000:
        raise StateError(f"{what}: {seconds} s is no time to live; possible are 0.001 s to 100 years")
    return int(seconds * 1000)
