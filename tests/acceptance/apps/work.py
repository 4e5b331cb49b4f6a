"""Handlers that misbehave on demand, run by the router under test from this folder (APP_DIR).

Their flags are files in the folder named by WORK_DIR; `tests.acceptance.workplace` is the other side of it.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from event_router import Event, EventHandler, Identifier, Reject, StateTransaction, on

DIRECTORY = Path(os.environ["WORK_DIR"])


class Work(msgspec.Struct):
    """What every event carries: the thing it counts on."""

    thing_id: Identifier


class WorkHandler(EventHandler):
    """Counts events on things; each type fails in a way of its own before it does."""

    domain = "work"

    @on("count")
    async def count(self, event: Event[Work], state: StateTransaction) -> None:
        """Never fails."""
        note_start(event)
        state.entity("thing", event.data.thing_id).increment("count")

    @on("gated")
    async def gated(self, event: Event[Work], state: StateTransaction) -> None:
        """Waits for the gate."""
        note_start(event)
        while not (DIRECTORY / "gate-open").exists():  # noqa: ASYNC110 - a test in another process opens it
            await asyncio.sleep(0.02)
        state.entity("thing", event.data.thing_id).increment("count")

    @on("append")
    async def append(self, event: Event[Work], state: StateTransaction) -> None:
        """Adds its id to what it read, which it holds until the gate opens."""
        thing = state.entity("thing", event.data.thing_id)
        known = await thing.get("ids")
        note_start(event)
        while not (DIRECTORY / "gate-open").exists():  # noqa: ASYNC110 - a test in another process opens it
            await asyncio.sleep(0.02)
        thing.set(ids=event.id if known is None else f"{known} {event.id}")

    @on("dependent")
    async def dependent(self, event: Event[Work], state: StateTransaction) -> None:
        """Fails while its dependency is down."""
        if (DIRECTORY / "dependency-down").exists():
            raise ConnectionError("the dependency is down")
        state.entity("thing", event.data.thing_id).increment("count")

    @on("poison")
    async def poison(self, event: Event[Work], state: StateTransaction) -> None:
        """Always fails, after it recorded an effect."""
        note_start(event)
        state.entity("thing", event.data.thing_id).increment("count")
        raise ValueError("this one can never work")

    @on("deadly")
    async def deadly(self, event: Event[Work], state: StateTransaction) -> None:
        """Takes the whole process down."""
        note_start(event)
        os._exit(1)

    @on("rejected")
    async def rejected(self, event: Event[Work], state: StateTransaction) -> None:
        """Says that it can never succeed, after it recorded an effect."""
        note_start(event)
        state.entity("thing", event.data.thing_id).increment("count")
        raise Reject("not for us")

    @on("hang_once")
    async def hang_once(self, event: Event[Work], state: StateTransaction) -> None:
        """Never ends at its first attempt."""
        note_start(event)
        if event.attempt == 1:
            await asyncio.Event().wait()
        state.entity("thing", event.data.thing_id).increment("count")

    @on("slow")
    async def slow(self, event: Event[Work], state: StateTransaction) -> None:
        """Takes four seconds."""
        note_start(event)
        await asyncio.sleep(4)
        state.entity("thing", event.data.thing_id).increment("count")


class OtherHandler(WorkHandler):
    """The same for a second domain."""

    domain = "other"


def note_start(event: Event[Work]) -> None:
    """Append who started what, in one write, so that lines of several processes stay whole."""
    line = f"{os.environ['POD_NAME']} {event.stream} {event.id} {event.attempt}\n"
    file = os.open(DIRECTORY / "starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
