"""What an examination of a router's surroundings has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("ok", "note", "warning", "error")
"""From good to bad. An error: events are not handled, or can be lost; a warning: that may come."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        severity: see `SEVERITIES`.
        check: what was examined, in a word or two.
        what: what was found, with its numbers.
        remedy: what to do about it; empty where nothing is.
    """

    severity: Severity
    check: str
    what: str
    remedy: str = ""

    def is_at_least(self, severity: Severity) -> bool:
        """Whether this is as bad or worse."""
        return SEVERITIES.index(self.severity) >= SEVERITIES.index(severity)


def ok(check: str, what: str) -> Finding:
    """Return what is as it should be."""
    return Finding("ok", check, what)


def note(check: str, what: str, remedy: str = "") -> Finding:
    """Return what is worth knowing."""
    return Finding("note", check, what, remedy)


def warning(check: str, what: str, remedy: str) -> Finding:
    """Return what may come to harm."""
    return Finding("warning", check, what, remedy)


def error(check: str, what: str, remedy: str) -> Finding:
    """Return what keeps events from being handled, or loses them."""
    return Finding("error", check, what, remedy)
