"""Stream entry ids: `milliseconds-sequence`, both unsigned 64-bit. See Redis "Entry IDs"."""

from __future__ import annotations

_LAST_SEQUENCE = 2**64 - 1


def parse_id(entry_id: str) -> tuple[int, int]:
    """Return (milliseconds, sequence); tuples compare as Redis orders the ids."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def before(entry_id: str) -> str:
    """Return the greatest id below this one; `0-0` stays itself."""
    milliseconds, sequence = parse_id(entry_id)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    if milliseconds:
        return f"{milliseconds - 1}-{_LAST_SEQUENCE}"
    return "0-0"
