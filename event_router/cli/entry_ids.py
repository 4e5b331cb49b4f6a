"""Ids of entries as they are given on the command line."""

from __future__ import annotations

import re

from event_router.cli.failures import WrongUsage

_ID = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?", re.ASCII)


def is_entry_id(text: str) -> bool:
    """Whether it is an id with both its numbers."""
    try:
        return entry_id_of(text, "") == text
    except WrongUsage:
        return False


def entry_id_of(text: str, name: str) -> str:
    """Return an id with both its numbers; without the second one it is 0.

    Raises:
        WrongUsage: it is no id; names the argument.
    """
    found = _ID.fullmatch(text)
    numbers = (int(found[1]), int(found[2] or 0)) if found else (2**64, 0)
    if max(numbers) >= 2**64:
        raise WrongUsage(f"{name} {text!r} is no id of an entry; write it as `pending` does: 1767225600123-0")
    return f"{numbers[0]}-{numbers[1]}"
