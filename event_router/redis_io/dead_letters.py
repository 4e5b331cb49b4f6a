"""Dead letters: list them, show them, give them back to their stream, or delete them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, WatchError

from event_router.core.entry_id import parse_id
from event_router.core.errors import EventRouterError, RedisRefused, RedisUnavailable
from event_router.redis_client.replies import translated
from event_router.redis_io.dead_letter_format import Letter, parse_letter

PAGE_BYTES = 1_000_000
"""Pages of letters shrink and grow towards this size: one letter may hold megabytes, or a hundred bytes."""
MOST_IN_A_PAGE = 500
MOST_FIELDS_FOR_A_SCRIPT = 3_900
"""Lua's unpack fails near 8,000 values."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant; what is left out chooses all.

    Attributes:
        ids: ids of letters in their dead-letter stream.
        reason: a dead-letter reason.
        type: an event type, with or without its `domain:`.
        since_ms: dead-lettered at or after this time, in milliseconds since 1970.
        until_ms: dead-lettered at or before this time.
    """

    ids: frozenset[str] = frozenset()
    reason: str | None = None
    type: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether the letter is one of those meant."""
        written_ms = parse_id(letter.id)[0]
        return (
            (not self.ids or letter.id in self.ids)
            and self.reason in (None, letter.reason)
            and self.type in (None, letter.type, (letter.type or "").rpartition(":")[2])
            and (self.since_ms is None or written_ms >= self.since_ms)
            and (self.until_ms is None or written_ms <= self.until_ms)
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one letter: its new entry, or why it stays.

    `gone` means that somebody else replayed or deleted it meanwhile; `would replay` is a dry run's.
    """

    letter: Letter
    outcome: Literal["replayed", "would replay", "skipped", "gone"]
    entry_id: str = ""
    why: str = ""


class DeadLetters:
    """The dead letters behind one client; streams are named by their `dlq:` key.

    All methods raise RedisUnavailable when Redis cannot be reached and RedisRefused for its refusals.
    """

    def __init__(self, client: Redis) -> None:
        # redis-py makes a dict of an entry's fields, which loses repeated names: ask for plain replies.
        self._client = Redis(connection_pool=client.connection_pool)
        self._client.set_response_callback("XRANGE", _as_it_came)
        self._replay_script = self._client.register_script(_script("dead_letter_replay.lua"))
        self._raw_script = _script("dead_letter_replay_raw.lua")

    async def letters(self, dlq: str, choice: Choice | None = None) -> AsyncIterator[Letter]:
        """Yield the letters chosen, oldest first, up to the last one that is there now."""
        choice = choice or Choice()
        end = await self._last_id(dlq)
        if end is None:
            return
        if choice.ids:
            for id_ in sorted(choice.ids, key=parse_id):
                for letter in await self._page(dlq, id_, id_, 1):
                    if choice.takes(letter):
                        yield letter
            return
        start = "-" if choice.since_ms is None else str(choice.since_ms)
        if choice.until_ms is not None and choice.until_ms < parse_id(end)[0]:
            end = str(choice.until_ms)
        count = 10
        while page := await self._page(dlq, start, end, count):
            for letter in page:
                if choice.takes(letter):
                    yield letter
            start = f"({page[-1].id}"
            size = sum(letter.size for letter in page) // len(page)
            count = max(1, min(MOST_IN_A_PAGE, PAGE_BYTES // (size + 1)))

    async def show(self, dlq: str, letter_id: str) -> Letter | None:
        """Return one letter, or None when there is none of this id."""
        page = await self._page(dlq, letter_id, letter_id, 1)
        return page[0] if page else None

    async def replay(
        self, dlq: str, choice: Choice | None = None, *, dry_run: bool = False, rate: float | None = None
    ) -> AsyncIterator[Replayed]:
        """Give the letters chosen back to their streams, at most `rate` a second, and yield each one's fate.

        Each letter moves in one atomic step, so that a replay that is killed neither loses nor doubles.
        A letter whose event fails again comes back behind the last one that is there now, and so is not
        replayed twice. Raises as the class says at the first letter that Redis refuses, which stays.
        """
        begin, count = time.monotonic(), 0
        async for letter in self.letters(dlq, choice):
            if why := letter.why_not_replayable:
                yield Replayed(letter, "skipped", why=why)
                continue
            if dry_run:
                yield Replayed(letter, "would replay")
                continue
            if rate is not None and (ahead := count / rate - (time.monotonic() - begin)) > 0:
                await asyncio.sleep(ahead)
            count += 1
            try:
                packed = letter.raw or len(letter.fields) > MOST_FIELDS_FOR_A_SCRIPT
                entry_id = await (self._move_raw(letter) if packed else self._move(letter))
            except (RedisError, OSError) as error:
                raise _refused(letter, error) from error
            yield Replayed(letter, "replayed" if entry_id else "gone", entry_id or "")

    async def purge(self, dlq: str, choice: Choice | None = None, *, dry_run: bool = False) -> int:
        """Delete the letters chosen and return how many they were."""
        deleted, batch = 0, list[str]()
        async for letter in self.letters(dlq, choice):
            batch.append(letter.id)
            if len(batch) == MOST_IN_A_PAGE:
                deleted += await self._delete(dlq, batch, dry_run)
                batch = []
        return deleted + await self._delete(dlq, batch, dry_run)

    async def _delete(self, dlq: str, ids: list[str], dry_run: bool) -> int:
        if dry_run or not ids:
            return len(ids)
        return int(await self._ask("XDEL", dlq, *ids))

    async def _move(self, letter: Letter) -> str | None:
        timestamp = letter.missing_timestamp or ""
        keys = [letter.dlq, letter.stream]
        added = await self._replay_script(keys=keys, args=[letter.id, len(letter.fields), timestamp])
        return cast(bytes, added).decode() if added else None

    async def _move_raw(self, letter: Letter) -> str | None:
        """Move a letter of more fields than a script can XADD, by a transaction.

        Whoever moves it writes the marker, which undoes the transaction of anybody else who has looked at
        the letter before; the marker never outlives the transaction.
        """
        fields: list[bytes | str] = [part for pair in letter.fields for part in pair]
        if letter.missing_timestamp:
            fields += ["timestamp", letter.missing_timestamp]
        marker = f"event-router:replay:{letter.dlq}:{letter.id}"

        def step(name: str) -> tuple[Any, ...]:
            # The text each time: EVALSHA of a script that a transaction does not find would break it open.
            return ("EVAL", self._raw_script, 3, letter.dlq, letter.stream, marker, name, letter.id)

        async with self._client.pipeline(transaction=True) as transaction:
            while True:
                await transaction.watch(marker)
                # Before MULTI a pipeline sends at once.
                found = transaction.execute_command(*step("look"))
                if not await cast(Awaitable[int], found):
                    return None
                transaction.multi()
                transaction.execute_command(*step("note"))
                transaction.execute_command("XADD", letter.stream, "*", *fields)
                transaction.execute_command(*step("settle"))
                try:
                    replies = await transaction.execute()
                except WatchError:
                    continue
                return cast(bytes, replies[1]).decode()

    async def _last_id(self, dlq: str) -> str | None:
        reply = await self._ask("XREVRANGE", dlq, "+", "-", "COUNT", 1)
        return reply[0][0].decode() if reply else None

    async def _page(self, dlq: str, start: str, end: str, count: int) -> list[Letter]:
        reply: Sequence[Any] = await self._ask("XRANGE", dlq, start, end, "COUNT", count)
        return [parse_letter(dlq, id_.decode(), fields) for id_, fields in reply]

    async def _ask(self, *command: Any) -> Any:
        try:
            return await self._client.execute_command(*command)
        except (RedisError, OSError) as error:
            raise translated(error) from error


def _as_it_came(response: Any, **_: Any) -> Any:
    return response


def _script(name: str) -> str:
    return files("event_router.redis_io.scripts").joinpath(name).read_text()


def _refused(letter: Letter, error: BaseException) -> EventRouterError:
    problem = translated(error)
    kind = RedisUnavailable if isinstance(problem, RedisUnavailable) else RedisRefused
    return kind(f"letter {letter.id} of {letter.dlq} was not given back to {letter.stream}: {problem}")
