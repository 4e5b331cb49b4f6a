"""Random commits for the property tests: keyspaces, units of work and dead letters, as hypothesis strategies.

All strategies draw from small pools, so that units meet on keys, fields, marks and entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from event_router.core.effects import Effects, Newest, Once, UnitOfWork
from event_router.core.errors import StateError
from event_router.core.outcome import DeadLetter, Settlement

STREAMS = ("events:x", "events:ÿ")
ENTRY_IDS = ("1-1", "1-2", "2-0", "9-9", "10-0")
MANY_IDS = (*ENTRY_IDS, *(f"{n}-0" for n in range(20, 40)))
NEVER_DELIVERED = "50-0"
KEYS = ("k:a", "k:b", "k:ключ", "k:\udcff")
LOGS = ("s:a", "s:b")
MARKS = ("event-router:mark:a", "event-router:mark:b")
FIELDS = ("n", "m", "f", "n:version", "version", "\udc80ü")
USERS = ("7", "ключ")

NUMBERS = (0, 1, -1, 5, 10**14, 10**15, -(10**15), 2**53 + 1, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1)
NO_NUMBERS = ("", "007", "+1", "1.0", "-0", "-", "abc", " 1", "1e3", "9223372036854775808", "9" * 30)
VERSIONS = (
    "9:1-1@s",
    "10:1-1@s",
    "10:1-2@s",
    "10:1-1@t",
    "10:1-1@ß",
    "99999999999999999999:1-1@s",
    "0:3:1-1@s",
    "0:3:1-10@s",
    "1:0:1-1@s",
    "junk",
    "",
)

numbers = st.sampled_from(NUMBERS) | st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)
texts = (
    numbers.map(str)
    | st.sampled_from(NO_NUMBERS)
    | st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
values = texts | st.sampled_from(VERSIONS)
ttls = st.sampled_from((3_600_000, 7_200_000))
ages = st.integers(1_000, 20_000) | st.sampled_from((1_000, 90_000))
"""Milliseconds since a change of presence: far from where it lapses, so that a test may take its time."""
letters = st.builds(
    DeadLetter,
    reason=st.sampled_from(("invalid", "poison")),
    error=st.text(max_size=20),
    deliveries=st.integers(0, 9),
    consumer=st.just("consumer-a"),
    time=st.just("2026-01-01T00:00:00.000Z"),
    fields=st.lists(st.binary(max_size=300), max_size=6).map(lambda parts: parts[: len(parts) // 2 * 2]),
)


@dataclass(frozen=True)
class Pools:
    """What the commits of a test draw from."""

    keys: tuple[str, ...]
    logs: tuple[str, ...]
    marks: tuple[str, ...]
    fields: tuple[str, ...]
    values: st.SearchStrategy[str]
    numbers: st.SearchStrategy[int]
    stale: st.SearchStrategy[bool]
    letters: st.SearchStrategy[DeadLetter | None]


WIDE = Pools(
    KEYS, LOGS, MARKS, FIELDS, values, numbers, st.booleans(), st.none() | st.none() | st.none() | letters
)
NARROW = Pools(
    ("k",),
    ("s",),
    MARKS[:1],
    ("n", "m", "n:version", "version"),
    st.integers(-3, 3).map(str) | st.sampled_from(VERSIONS),
    st.integers(-9, 9) | numbers,
    st.just(False),
    st.none(),
)
"""Units that are committed mostly, and nearly always meet."""


@dataclass(frozen=True)
class Case:
    """One entry's part of a batch, before its up-to-date reads are filled in."""

    stream: str
    entry_id: str
    unit: Any
    reads: Any
    letter: DeadLetter | None
    unique_id: str | None = None
    presence: Any = ()

    def settlement(self, hashes: dict[str, dict[str, str]], now_ms: int) -> Settlement:
        """Return what is committed; `hashes` is what an up-to-date read finds."""
        read = UnitOfWork()
        for stale, key, field, value in self.reads:
            read.hash(key).note(field, value if stale else hashes.get(key, {}).get(field))
        if self.letter is not None:
            return Settlement(self.stream, self.entry_id, self.letter, read, self.unique_id)
        unit = unit_of(*self.unit)
        for key, effects in read.hashes.items():
            unit.hash(key).reads = effects.reads
        if self.presence:
            unit.presence = [
                (user, connection or False, status, str(now_ms - age_ms))
                for user, connection, status, age_ms in self.presence
            ]
        return Settlement(self.stream, self.entry_id, unit, None, self.unique_id)


def plain_effects(pools: Pools) -> st.SearchStrategy[list[Any]]:
    """Effects as tuples of their name and arguments, in the order they are recorded."""
    keys, fields = st.sampled_from(pools.keys), st.sampled_from(pools.fields)
    on_hashes = st.one_of(
        st.tuples(st.just("set"), keys, fields, pools.values),
        st.tuples(st.just("increment"), keys, fields, pools.numbers),
        st.tuples(st.just("increment"), keys, st.just("n"), st.integers(-9, 9)),
        st.tuples(st.just("maximum"), keys, fields, pools.numbers),
        st.tuples(st.just("set_latest"), keys, fields, pools.values, st.sampled_from(VERSIONS)),
        st.tuples(st.just("delete"), keys, fields),
        st.tuples(st.just("clear"), keys),
        st.tuples(st.just("expire"), keys, ttls),
        st.tuples(st.just("touch"), keys),
    )
    emissions = st.tuples(
        st.just("emit"),
        st.sampled_from(pools.logs) | st.sampled_from(pools.logs) | keys,
        st.dictionaries(fields, pools.values, min_size=1, max_size=3),
        st.sampled_from((None, 100_000)),
    )
    return st.lists(on_hashes | on_hashes | emissions, max_size=5)


def batches(pools: Pools, entry_ids: Sequence[str]) -> st.SearchStrategy[list[Case]]:
    """Batches of a few entries of both streams."""
    keys, fields = st.sampled_from(pools.keys), st.sampled_from(pools.fields)
    effects = plain_effects(pools)
    once = st.tuples(st.just("once"), st.sampled_from(pools.marks), ttls, effects)
    newest = st.tuples(
        st.just("newest"),
        keys,
        st.sampled_from(VERSIONS),
        st.dictionaries(st.sampled_from(("stage", "n")), pools.values, min_size=1),
        ttls,
        effects,
    )
    values_read = st.none() | pools.values
    of_one_hash = st.builds(
        lambda key, names, stale, value: [
            (stale and not n, key, name, value) for n, name in enumerate(names)
        ],
        keys,
        st.lists(fields, min_size=2, unique=True),
        pools.stale,
        values_read,
    )
    presence = st.tuples(
        st.sampled_from(USERS),
        st.sampled_from((None, "phone", "a b")),
        st.sampled_from(("online", "away", "busy", "offline")),
        ages,
    )
    cases = st.builds(
        Case,
        stream=st.sampled_from(STREAMS),
        entry_id=st.sampled_from(entry_ids),
        unit=st.tuples(effects, st.lists(once | newest, max_size=2)),
        reads=st.lists(st.tuples(pools.stale, keys, fields, values_read), max_size=2) | of_one_hash,
        letter=pools.letters,
        unique_id=st.none() | st.none() | st.sampled_from(("a", "ключ")),
        presence=st.just(()) | st.just(()) | st.lists(presence, min_size=1, max_size=3),
    )
    return st.lists(cases, min_size=1, max_size=8)


def initial_keys(pools: Pools) -> st.SearchStrategy[dict[str, tuple[str, Any]]]:
    """What stands before the first commit: key to its type and content."""
    hashes = st.tuples(
        st.just("hash"), st.dictionaries(st.sampled_from(pools.fields), pools.values, min_size=1)
    )
    return st.dictionaries(
        st.sampled_from((*pools.keys, *pools.logs, *pools.marks, f"dlq:{STREAMS[0]}")),
        st.one_of(
            hashes,
            hashes,
            hashes,
            st.tuples(st.just("stream"), st.just({"old": "entry"})),
            st.tuples(st.just("string"), st.just("text")),
            st.tuples(st.just("list"), st.just("element")),
        ),
        max_size=4,
    )


def unit_of(plain: Iterable[Any], conditional: Iterable[Any]) -> UnitOfWork:
    """Record the effects one by one; those that contradict earlier ones are left out."""
    unit = UnitOfWork()
    _record(unit, plain)
    for kind, *rest in conditional:
        branch: Once | Newest
        if kind == "once":
            mark, ttl_ms, inner = rest
            branch = Once(mark, ttl_ms)
        else:
            key, version, record, ttl_ms, inner = rest
            branch = Newest(key, version, dict(record), ttl_ms)
        _record(branch, inner)
        unit.branches.append(branch)
        try:
            unit.refuse_contradictions()
        except StateError:
            unit.branches.pop()
    return unit


def _record(effects: Effects, recorded: Iterable[Any]) -> None:
    for kind, key, *rest in recorded:
        try:
            if kind == "emit":
                effects.emit(key, *rest)
            elif kind == "touch":
                effects.hash(key)
            elif kind == "expire":
                effects.hash(key).ttl_ms = rest[0]
            else:
                getattr(effects.hash(key), kind)(*rest)
        except StateError:
            continue
