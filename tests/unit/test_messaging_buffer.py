"""The buffer of a subscriber, and its memory of what came before."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from event_router.messaging.buffer import Arrived, Buffer
from event_router.messaging.messages import Gap
from event_router.messaging.seen import Seen


def arrived(number: int, channel: str = "a", size: int = 1) -> Arrived:
    return Arrived((False, channel), channel, str(number).encode() * size)


class Filled:
    def __init__(self, size: int = 3, max_bytes: int = 1000) -> None:
        self.dropped: Counter[str] = Counter()
        self.buffer = Buffer(size, max_bytes, lambda channel: self.dropped.update([channel]))

    async def taken(self) -> list[object]:
        self.buffer.end()
        found: list[object] = []
        while (item := await self.buffer.take()) is not None:
            found.append(item if isinstance(item, Gap) else int(item.payload[:1]))
        return found


async def test_gives_messages_in_their_order() -> None:
    filled = Filled()
    for number in (1, 2, 3):
        filled.buffer.put(arrived(number))
    assert await filled.taken() == [1, 2, 3]
    assert not filled.dropped


async def test_a_full_one_drops_the_oldest_and_says_how_many() -> None:
    filled = Filled()
    for number in range(1, 8):
        filled.buffer.put(arrived(number, "ab"[number % 2]))
    assert filled.dropped == {"a": 2, "b": 2}
    assert await filled.taken() == [Gap(4), 5, 6, 7]


async def test_is_bounded_in_bytes_too() -> None:
    filled = Filled(size=100, max_bytes=10)
    for number in (1, 2, 3):
        filled.buffer.put(arrived(number, size=4))
    assert await filled.taken() == [Gap(1), 2, 3]
    one = Filled(max_bytes=10)
    one.buffer.put(arrived(1, size=50))
    assert await one.taken() == [1]
    assert repr(one.buffer) == "<Buffer 0 of 3 messages, 0 bytes>"


async def test_a_gap_stands_where_messages_are_missing() -> None:
    filled = Filled()
    filled.buffer.put(arrived(1))
    filled.buffer.mark_gap(Gap(reconnected=True))
    filled.buffer.put(arrived(2))
    assert await filled.taken() == [1, Gap(reconnected=True), 2]


async def test_a_gap_that_is_dropped_is_told_with_the_others() -> None:
    filled = Filled()
    filled.buffer.mark_gap(Gap(reconnected=True))
    for number in range(1, 6):
        filled.buffer.put(arrived(number))
    assert await filled.taken() == [Gap(2, reconnected=True), 3, 4, 5]


async def test_gaps_in_a_row_are_one() -> None:
    filled = Filled()
    for _ in range(1000):
        filled.buffer.mark_gap(Gap(reconnected=True))
    assert await filled.taken() == [Gap(reconnected=True)]


async def test_whoever_waits_gets_what_comes_and_the_end() -> None:
    filled = Filled()
    waiting = asyncio.create_task(filled.buffer.take())
    await asyncio.sleep(0)
    filled.buffer.put(arrived(1))
    assert await waiting == arrived(1)
    waiting = asyncio.create_task(filled.buffer.take())
    await asyncio.sleep(0)
    filled.buffer.end(ValueError("over"))
    with pytest.raises(ValueError, match="over"):
        await waiting
    of_before, waiting = filled.buffer.session, asyncio.create_task(filled.buffer.take())
    filled.buffer.end()
    await asyncio.sleep(0)
    filled.buffer.resume()
    filled.buffer.put(arrived(2))
    assert await waiting is None
    assert await filled.buffer.take(of_before) is None
    assert await filled.buffer.take() == arrived(2)


async def test_forgets_what_is_no_longer_wanted() -> None:
    filled = Filled()
    filled.buffer.put(arrived(1, "a"))
    filled.buffer.mark_gap(Gap(reconnected=True))
    filled.buffer.put(arrived(2, "b"))
    filled.buffer.forget({(False, "a"), (True, "b")})
    assert await filled.taken() == [Gap(reconnected=True), 2]


class TestSeen:
    def test_tells_what_comes_again(self) -> None:
        seen = Seen(10)
        assert [seen.is_repeated(arrived(number)) for number in (1, 2, 1, 2)] == [False, False, True, True]

    def test_tells_subscriptions_apart(self) -> None:
        seen = Seen(10)
        one = Arrived((False, "events:a"), "events:a", b"{}")
        other = Arrived((True, "events:*"), "events:a", b"{}")
        assert not any(seen.is_repeated(item) for item in (one, other, other._replace(channel="events:b")))

    def test_has_a_bounded_memory(self) -> None:
        seen = Seen(3)
        for number in range(10):
            seen.is_repeated(arrived(number))
        assert len(seen) == 3
        assert seen.is_repeated(arrived(9))
        assert not seen.is_repeated(arrived(0))

    def test_remembers_nothing_if_it_shall_not(self) -> None:
        seen = Seen(0)
        assert not seen.is_repeated(arrived(1))
        assert not seen.is_repeated(arrived(1))
