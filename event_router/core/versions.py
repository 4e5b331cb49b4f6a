"""Versions decide which of two writes is the later one, whatever order they arrive in.

A version is numbers joined by `:` or `-`, then `@` and text: `{time_ms}:{entry id}@{stream}` for a
field, `{terminal}:{seq}:{entry id}@{stream}` for a job's state.
"""

from __future__ import annotations

import re

from event_router.core.values import text_bytes

_PART = re.compile(rb"([0-9]+)([:@-])(.*)", re.DOTALL)


def newer(version: str, stored: str) -> bool:
    """Whether a version beats the stored one: numbers compare as numbers, the rest byte by byte."""
    a, b = text_bytes(version), text_bytes(stored)
    while (x := _PART.fullmatch(a)) and (y := _PART.fullmatch(b)):
        if x[1] != y[1]:
            return (len(x[1]), x[1]) > (len(y[1]), y[1])
        a, b = x[3], y[3]
        if x[2] == b"@":
            break
    return a > b
