"""Tasks end, also those that lose a cancellation."""

from __future__ import annotations

import asyncio

from event_router.runtime.cancelling import end


async def test_tasks_end_and_raise_nothing() -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise RuntimeError("no")

    tasks = [asyncio.create_task(waits()), asyncio.create_task(fails())]
    await asyncio.sleep(0)
    await asyncio.wait_for(end(*tasks), 5)
    assert all(task.done() for task in tasks)
    await end(*tasks)
    await end()


async def test_a_task_that_loses_a_cancellation_ends_too() -> None:
    async def loses_one() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.create_task(loses_one())
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 5)
    assert task.cancelled()
