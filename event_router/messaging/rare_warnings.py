"""Warnings about single messages, which may come by the thousand."""

from __future__ import annotations

import logging
from collections.abc import Callable

INTERVAL_S = 10.0

_log = logging.getLogger("event_router")


class RareWarnings:
    """Logs one warning in ten seconds, with how many were left out before it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._next = -INTERVAL_S
        self._left_out = 0

    def warn(self, text: str) -> None:
        """Log the text, or count it as left out."""
        now = self._monotonic()
        if now < self._next:
            self._left_out += 1
            return
        others = f" ({self._left_out} warnings were left out)" if self._left_out else ""
        _log.warning("%s%s", text, others)
        self._next, self._left_out = now + INTERVAL_S, 0
