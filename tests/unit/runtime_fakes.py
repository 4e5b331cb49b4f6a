"""What the runtime needs of Redis, kept in memory; time and chance stand still until a test moves them."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from event_router.core.effects import UnitOfWork
from event_router.core.entry_id import parse_id
from event_router.core.errors import EventRouterError, InvalidState, RedisDenied, RedisUnavailable
from event_router.core.event import Entry
from event_router.core.outcome import Answer, Answers, DeadLetter, Settlement, Verdict
from event_router.runtime.connectivity import Clock
from event_router.runtime.observer import Observer
from event_router.runtime.ports import GroupCreation

BIKES, CARS = "events:bikes", "events:cars"
ME, OTHER = "consumer-a", "consumer-b"
FIRST_MS = 1_767_225_600_000
NO_PAUSE = -1.5
"""Chance that makes the jittered pause after a failed call nothing: 0.75 + 0.5 × −1.5 = 0."""


class Time:
    """A clock that a test moves by hand."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.clock = Clock(lambda: self.now, lambda: FIRST_MS + int(self.now * 1000), lambda: NO_PAUSE)

    def pass_(self, seconds: float) -> None:
        self.now += seconds


async def until(condition: Callable[[], object], turns: int = 5_000) -> None:
    """Let the event loop turn until the condition holds; fail if it never does."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("this never came about")


async def settled(turns: int = 100) -> None:
    """Let everything happen that can happen without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


def entry_id(number: int) -> str:
    return f"{FIRST_MS + number}-0"


def entry(number: int, bike: str = "b1", *, stream: str = BIKES, deliveries: int = 1, **fields: str) -> Entry:
    values = {"type": "ridden", "bike_id": bike, **fields}
    flat = [part.encode() for pair in values.items() for part in pair]
    return Entry(stream, entry_id(number), flat, deliveries)


class Report(NamedTuple):
    """One call of the observer."""

    name: str
    args: tuple[Any, ...]


class Reports(Observer):
    """Remembers everything the runtime tells the world, and passes it on."""

    def __init__(self, beside: Observer | None = None) -> None:
        self.all: list[Report] = []
        self._beside = beside or Observer()
        for name in [name for name in vars(Observer) if not name.startswith("_")]:
            setattr(self, name, self._remember(name))

    def _remember(self, name: str) -> Callable[..., None]:
        pass_on = getattr(self._beside, name)

        def report(*args: Any) -> None:
            self.all.append(Report(name, args))
            pass_on(*args)

        return report

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [report.args for report in self.all if report.name == name]

    def letters(self) -> list[tuple[str, str]]:
        """(entry id, reason) of the dead letters that are written."""
        return [(delivery.entry.id, reason) for delivery, reason, _ in self.of("dead_lettered")]


@dataclass
class Part:
    """One entry's part of a commit."""

    settlement: Settlement
    weight: int = 1

    @property
    def work(self) -> UnitOfWork | DeadLetter:
        return self.settlement.work


Step = Exception | Sequence[Verdict | Answer]


class FakeCommits:
    """Answers batches as the test says, else that all are committed. Remembers what was sent.

    Attributes:
        steps: what the next sends raise or answer.
        batches: the ids in every batch that was sent.
        gate: while it is not set, no send is answered.
        answer: how an entry is answered when no step is left.
        blocked_s: how long each commit keeps Redis busy.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.packed: list[list[Part]] = []
        self.sent: list[bytes] = []
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.weigh: Callable[[Settlement], int] = lambda settlement: 1
        self.answer: Callable[[Part], Verdict | Answer] = lambda part: Verdict.COMMITTED
        self.blocked_s = 0.0

    def prepare(self, settlement: Settlement) -> Part:
        return Part(settlement, self.weigh(settlement))

    def pack(self, batch_of: Sequence[Part]) -> bytes:
        self.packed.append(list(batch_of))
        return str(len(self.packed) - 1).encode()

    async def send(self, packed: bytes) -> Answers:
        parts = self.packed[int(packed)]
        self.sent.append(packed)
        self.batches.append([part.settlement.id for part in parts])
        await self.gate.wait()
        step: Step = self.steps.pop(0) if self.steps else [self.answer(part) for part in parts]
        if isinstance(step, Exception):
            raise copy.copy(step)
        answers = Answers(item if isinstance(item, Answer) else Answer(item) for item in step)
        answers.blocked_s = self.blocked_s
        return answers


class FakeState:
    """Hashes to read from; `errors` are raised by the next reads, `gate` holds them back."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], str | InvalidState | RedisDenied] = {}
        self.reads: list[list[tuple[str, str]]] = []
        self.errors: list[EventRouterError] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, places: Sequence[tuple[str, str]]) -> list[str | InvalidState | RedisDenied | None]:
        self.reads.append(list(places))
        await self.gate.wait()
        if self.errors:
            raise copy.copy(self.errors.pop(0))
        return [self.values.get(place) for place in places]


class FakeReads:
    """A stream's undelivered entries; a blocked read ends when there are some, or by `unblock`."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Entry]] = {}
        self.calls: list[tuple[tuple[str, ...], int, int | None]] = []
        self.errors: list[EventRouterError] = []
        self.more = asyncio.Event()
        self.unblocked = 0

    def add(self, *entries: Entry) -> None:
        for one in entries:
            self.entries.setdefault(one.stream, []).append(one)
        self.more.set()

    async def read(self, streams: Sequence[str], *, count: int, block_ms: int | None) -> list[Entry]:
        self.calls.append((tuple(streams), count, block_ms))
        while True:
            if self.errors:
                raise copy.copy(self.errors.pop(0))
            found: list[Entry] = []
            for stream in streams:
                waiting = self.entries.get(stream, [])
                found += waiting[:count]
                del waiting[:count]
            if found or block_ms is None or self.unblocked:
                return found
            self.more.clear()
            await self.more.wait()

    async def unblock(self) -> None:
        self.unblocked += 1
        self.more.set()


@dataclass
class Pending:
    """An entry in the pending list; without fields it was trimmed from its stream."""

    owner: str = OTHER
    idle_ms: int = 60_000
    deliveries: int = 1
    fields: list[bytes] | None = None


class TakenPage(NamedTuple):
    entries: list[Entry]
    trimmed: list[tuple[str, int]]
    last: str


@dataclass
class FakeClaims:
    """The pending lists of a group, as one consumer works on them.

    Attributes:
        errors: by method, what its next calls raise.
        calls: method and stream of every call.
    """

    pending: dict[str, dict[str, Pending]] = field(default_factory=dict)
    errors: dict[str, list[Exception]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    starts: list[tuple[str, int]] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)

    def add(self, one: Entry, *, owner: str = OTHER, idle_ms: int = 60_000, trimmed: bool = False) -> None:
        item = Pending(owner, idle_ms, one.deliveries, None if trimmed else one.fields)
        self.pending.setdefault(one.stream, {})[one.id] = item

    def state(self, number: int, stream: str = BIKES) -> tuple[str, int, int]:
        """(owner, idle ms, deliveries) of an entry."""
        item = self.pending[stream][entry_id(number)]
        return item.owner, item.idle_ms, item.deliveries

    def _called(self, method: str, stream: str) -> dict[str, Pending]:
        self.calls.append((method, stream))
        if self.errors.get(method):
            raise copy.copy(self.errors[method].pop(0))
        return self.pending.setdefault(stream, {})

    async def due(self, stream: str, min_idle_ms: int) -> bool:
        return any(item.idle_ms >= min_idle_ms for item in self._called("due", stream).values())

    async def take(
        self, stream: str, *, min_idle_ms: int, after: str = "", count: int, own: bool = False
    ) -> TakenPage:
        items = self._called("take", stream)
        self.pages.append(after)
        beyond = sorted((one for one in items if not after or parse_id(one) > parse_id(after)), key=parse_id)
        page = beyond[:count]
        entries, trimmed = self._take(stream, page, min_idle_ms, own)
        return TakenPage(entries, trimmed, page[-1] if len(beyond) > count else "")

    async def take_ids(
        self, stream: str, ids: Sequence[str], *, min_idle_ms: int, own: bool = False
    ) -> TakenPage:
        items = self._called("take_ids", stream)
        entries, trimmed = self._take(stream, [one for one in ids if one in items], min_idle_ms, own)
        return TakenPage(entries, trimmed, "")

    def _take(
        self, stream: str, ids: Iterable[str], min_idle_ms: int, own: bool
    ) -> tuple[list[Entry], list[tuple[str, int]]]:
        entries, trimmed = [], []
        for one in ids:
            item = self.pending[stream][one]
            if item.idle_ms < min_idle_ms or (own and item.owner != ME):
                continue
            item.owner, item.idle_ms = ME, 0
            if item.fields is None:
                trimmed.append((one, item.deliveries))
            else:
                entries.append(Entry(stream, one, item.fields, item.deliveries))
        return entries, trimmed

    async def count_start(
        self, stream: str, entries: Sequence[tuple[str, int]], *, again: bool = False
    ) -> list[int]:
        items = self._called("count_start", stream)
        self.starts += entries
        counts = []
        for one, count in entries:
            item = items.get(one)
            known = item is not None and item.deliveries in ((count, count + 1) if again else (count,))
            counts += self._set(items, [(one, 0, count + 1)]) if known else [-1]
        return counts

    async def set(self, stream: str, leases: Iterable[tuple[str, int, int | None]]) -> list[int]:
        return self._set(self._called("set", stream), leases)

    def _set(self, items: dict[str, Pending], leases: Iterable[tuple[str, int, int | None]]) -> list[int]:
        counts = []
        for one, idle_ms, deliveries in leases:
            item = items.get(one)
            if item is None or item.owner != ME:
                counts.append(-1)
                continue
            item.idle_ms = idle_ms
            item.deliveries = item.deliveries if deliveries is None else deliveries
            counts.append(item.deliveries)
        return counts

    async def own_ids(self, stream: str) -> list[str]:
        return [one for one, item in self._called("own_ids", stream).items() if item.owner == ME]


@dataclass
class Creation:
    start: str = "0-0"
    entries: int = 0
    known: bool = False


class FakeGroups:
    """Groups that exist, unless `missing` says otherwise."""

    def __init__(self) -> None:
        self.missing: dict[str, Creation] = {}
        self.errors: list[EventRouterError] = []
        self.ensured: list[str] = []
        self.left: list[str] = []
        self.trims: list[int] = []
        self.dead: list[str] = []

    async def ensure(self, stream: str) -> GroupCreation | None:
        self.ensured.append(stream)
        if self.errors:
            raise copy.copy(self.errors.pop(0))
        return self.missing.pop(stream, None)

    async def remove_dead(self, stream: str, *, idle_ms: int, keep: str) -> list[str]:
        removed, self.dead = [name for name in self.dead if name != keep], []
        return removed

    async def leave(self, stream: str, consumer: str) -> bool:
        self.left.append(stream)
        return True

    async def retain(self, stream: str, *, least: int) -> int:
        return self.trims.pop(0) if self.trims else 0

    async def repair_lag(self, stream: str) -> bool:
        return False


AWAY = RedisUnavailable("it is away")
