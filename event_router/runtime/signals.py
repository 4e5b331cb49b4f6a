"""Signals, caught for as long as the router runs: the first asks it to stop, the second forces it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """What the signals ask for.

    Attributes:
        graceful: set by the first signal.
        forced: set by the second.
    """

    def __init__(self) -> None:
        self.graceful = asyncio.Event()
        self.forced = asyncio.Event()

    def ask(self) -> None:
        """Ask for a stop; asking again forces it."""
        (self.forced if self.graceful.is_set() else self.graceful).set()


@contextmanager
def caught_signals(request: StopRequest) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into stop requests while the context lasts."""
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, request.ask)
    try:
        yield
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)
