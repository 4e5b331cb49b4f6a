"""`python -m event_router.cli` is `event-router`."""

from __future__ import annotations

from event_router.cli import main

main()
