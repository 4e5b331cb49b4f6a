"""What waits for a permission, apart from all that Redis allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from event_router.core.errors import RedisDenied
from event_router.runtime.connectivity import Connectivity

Item = TypeVar("Item")


class Denied(Generic[Item]):
    """Keeps what the user may not do, and has it asked for again after pauses that grow.

    It is no event's fault, so nothing fails or runs out of time; the router is not ready until the last
    item is allowed or given up.

    Args:
        role: one of its own, because others are answered meanwhile, which must not end the outage.
        ask_again: takes items to be asked for again.
        given_up: whether nobody waits for an item any more.
    """

    def __init__(
        self,
        connectivity: Connectivity,
        role: str,
        ask_again: Callable[[list[Item]], None],
        given_up: Callable[[Item], bool] = lambda item: False,
    ) -> None:
        self._connectivity = connectivity
        self._role = role
        self._ask_again = ask_again
        self._given_up = given_up
        self._waiting: dict[Item, None] = {}
        self._asked: dict[Item, None] = {}
        self._pause: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Denied {self._role}: {len(self._waiting) + len(self._asked)}>"

    def __iter__(self) -> Iterator[Item]:
        """Yield what is waited for."""
        yield from self._waiting
        yield from self._asked

    def settle(self, asked: Iterable[Item], denied: Sequence[Item], error: RedisDenied | None) -> None:
        """Take what was denied of all that was asked for together, and the error of one of them."""
        if not (self._waiting or self._asked or denied):
            return
        for item in asked:
            self._asked.pop(item, None)
        self._waiting.update(dict.fromkeys(denied))
        if self._any_left() and error is not None and self._pause is None:
            self._pause = asyncio.create_task(self._connectivity.failed(self._role, error))
            self._pause.add_done_callback(self._pause_over)

    def stop(self) -> None:
        """Ask for nothing any more."""
        if self._pause is not None:
            self._pause.remove_done_callback(self._pause_over)
            self._pause.cancel()
            self._pause = None

    def _pause_over(self, pause: asyncio.Task[None]) -> None:
        self._pause = None
        if self._any_left():
            again = [*self._waiting]
            self._asked.update(self._waiting)
            self._waiting.clear()
            self._ask_again(again)

    def _any_left(self) -> bool:
        """Forget what was given up; the last item that goes ends the outage."""
        for items in (self._waiting, self._asked):
            for item in [item for item in items if self._given_up(item)]:
                del items[item]
        if self._waiting or self._asked:
            return True
        self._connectivity.answered(self._role)
        return False
