"""Work of which one run serves everybody in the process who asks for it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0


class Flights(Generic[T]):
    """Runs by name. A run goes on until it ends or nobody waits for it any more; then it is cancelled."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    def __repr__(self) -> str:
        return f"<Flights {sorted(self._flights)}>"

    def __contains__(self, name: str) -> bool:
        return name in self._flights

    async def run(self, name: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the run of this name, begun now unless it is under way. Its error reaches all who wait."""
        flight = self._flights.get(name)
        if flight is None:
            flight = self._flights[name] = _Flight(asyncio.create_task(begin()))
            flight.task.add_done_callback(lambda task: self._ended(name, task))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(name, flight.task)
                flight.task.cancel()

    def forget(self, name: str) -> None:
        """Have who comes later begin anew; who waits already gets what is under way."""
        self._flights.pop(name, None)

    def _ended(self, name: str, task: asyncio.Task[T]) -> None:
        self._forget(name, task)
        if not task.cancelled():
            task.exception()  # so that it counts as seen, should all who waited be gone

    def _forget(self, name: str, task: asyncio.Task[T]) -> None:
        flight = self._flights.get(name)
        if flight is not None and flight.task is task:
            del self._flights[name]
