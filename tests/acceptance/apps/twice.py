"""A second handler for a type that `work.WorkHandler` takes."""

from __future__ import annotations

from work import WorkHandler


class TwiceHandler(WorkHandler):
    """Takes the same domain and types again."""
