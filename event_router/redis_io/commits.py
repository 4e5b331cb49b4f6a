"""The commit: effects and acknowledgement of a batch in one script call (`scripts/commit.lua`).

Everything is text to the script: cmsgpack refuses msgpack's `bin`, drops trailing nils and loses
digits above 2^53. Integers travel as decimals, absence as `false`, raw bytes as msgpack `str`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from event_router.core.effects import Effects, HashEffects, Newest, Once, UnitOfWork
from event_router.core.keys import checkpoint_key, dead_letter_stream
from event_router.core.outcome import Answer, DeadLetter, Settlement, Verdict
from event_router.redis_client.connections import Link
from event_router.redis_client.script import Script

SET, INCREMENT, LATEST, MAXIMUM, DELETE, CLEAR, EXPIRE, ADD, ONCE, NEWEST = range(1, 11)
PARTS_OF_WEIGHT = 64
BYTES_OF_WEIGHT = 4_096
"""What weighs as much as one ordinary event in a batch, so that a batch stays short for Redis."""

_ANSWERS = {verdict.value: Answer(verdict) for verdict in Verdict}


class Prepared(msgspec.Struct):
    """One entry's part of a commit in the script's terms.

    Attributes:
        weight: its share of a batch, 1 for an ordinary event, more for large ones.
    """

    stream: str
    id: str
    reads: Any
    ops: list[Any]
    weight: int


class Commits:
    """Commits batches over one connection of its own."""

    def __init__(self, link: Link, group: str) -> None:
        self._link = link
        self._group = group
        self._script = Script("commit")

    def prepare(self, settlement: Settlement) -> Prepared:
        """Translate one entry's part. Raises StateError for effects that contradict each other."""
        work = settlement.work
        if isinstance(work, DeadLetter):
            ops = [_letter(settlement, work)]
            weight = 1 + sum(map(len, work.fields)) // BYTES_OF_WEIGHT
            reads = False if settlement.decided_on is None else _reads(settlement.decided_on)
            return Prepared(settlement.stream, settlement.id, reads, ops, weight)
        ops = operations(work)
        parts = _parts(ops) if work.branches else sum(map(len, ops))
        weight = 1 + parts // PARTS_OF_WEIGHT
        return Prepared(settlement.stream, settlement.id, _reads(work), ops, weight)

    def pack(self, batch_of: Sequence[Settlement | Prepared]) -> bytes:
        """Return the batch as the script takes it; sending it again unchanged is safe."""
        streams: dict[str, int] = {}
        units = []
        for part in batch_of:
            prepared = self.prepare(part) if isinstance(part, Settlement) else part
            index = streams.setdefault(prepared.stream, len(streams) + 1)
            units.append((index, prepared.id, prepared.reads, prepared.ops))
        return _encoded((self._group, checkpoint_key(self._group), list(streams), units))

    async def send(self, packed: bytes) -> list[Answer]:
        """Commit a packed batch and return the answer for each entry, in order.

        Raises:
            RedisUnavailable: whether it was committed is unknown; send it again unchanged.
            NoGroup: nothing was written; create the group, then send it again.
        """
        reply = await self._script.run(self._link, args=(packed,))
        return [
            _ANSWERS[answer]
            if type(answer) is int
            else Answer(Verdict(answer[0]), answer[1].decode("utf-8", "backslashreplace"))
            for answer in reply
        ]


def packed_places(places: Iterable[tuple[str, str]]) -> bytes:
    """Return (key, field) pairs as the read script takes them."""
    return _encoded([*chain.from_iterable(places)])


def _encoded(message: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(message)
    except UnicodeEncodeError:  # some text is not UTF-8: rare, so it is looked for only now
        return msgspec.msgpack.encode(_encodable(message))


def operations(effects: Effects) -> list[Any]:
    """Return effects as the script's operations. Raises StateError for effects that contradict."""
    ops: list[Any] = []
    for hash_effects in effects.hashes.values():
        _hash_operations(hash_effects, ops)
    ops += [[ADD, sent.stream, _maxlen(sent.maxlen), *sent.fields] for sent in effects.emissions]
    if effects.branches:
        if isinstance(effects, UnitOfWork):
            effects.refuse_contradictions()
        ops += map(_branch_operation, effects.branches)
    return ops


def _hash_operations(effects: HashEffects, ops: list[Any]) -> None:
    key = effects.key
    if effects.cleared:
        ops.append([CLEAR, key])
    if effects.sets:
        ops.append([SET, key, *chain.from_iterable(effects.sets.items())])
    if effects.latest:
        latest: list[Any] = [LATEST, key]
        for field, version_and_value in effects.latest.items():
            latest += (field, *version_and_value)
        ops.append(latest)
    if effects.maxima:
        ops.append(_numbers(SET if effects.cleared else MAXIMUM, key, effects.maxima))
    if effects.increments:
        ops.append(_numbers(SET if effects.cleared else INCREMENT, key, effects.increments))
    if effects.deletes and not effects.cleared:
        # Last, so that the key keeps its time to live unless the unit leaves nothing in it.
        ops.append([DELETE, key, *effects.deletes])
    if effects.ttl_ms is not None:
        ops.append([EXPIRE, key, str(effects.ttl_ms)])


def _parts(ops: list[Any]) -> int:
    """Return how many keys, names, values and amounts there are in operations."""
    parts = sum(map(len, ops))
    for op in ops:
        if op[0] >= ONCE:
            parts += _parts(op[-1])
    return parts


def _branch_operation(branch: Once | Newest) -> list[Any]:
    if isinstance(branch, Once):
        return [ONCE, branch.mark, str(branch.ttl_ms), operations(branch)]
    record = [*chain.from_iterable(branch.record.items())]
    return [NEWEST, branch.key, branch.version, str(branch.ttl_ms), record, operations(branch)]


def _numbers(code: int, key: str, values: dict[str, int]) -> list[Any]:
    op: list[Any] = [code, key]
    for field, number in values.items():
        op += (field, str(number))
    return op


def _reads(unit: UnitOfWork) -> Any:
    if not unit.reads:
        return False
    flat: list[Any] = []
    for (key, field), value in unit.reads.items():
        flat += (key, field, False if value is None else value)
    return flat


def _letter(settlement: Settlement, letter: DeadLetter) -> list[Any]:
    entry = letter.entry(settlement.stream, settlement.id)
    return [ADD, dead_letter_stream(settlement.stream), False, *map(_raw, entry)]


def _maxlen(maxlen: int | None) -> Any:
    return False if maxlen is None else str(maxlen)


def _encodable(value: Any) -> Any:
    """Return nested arrays with each text that is not UTF-8 (surrogate escapes) as raw bytes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return _raw(value.encode("utf-8", "surrogateescape"))
    elif isinstance(value, list | tuple):
        return [_encodable(part) for part in value]
    return value


def _raw(data: bytes) -> msgspec.Raw:
    """Return bytes as a msgpack str, whether or not they are UTF-8."""
    size = len(data)
    if size < 32:
        return msgspec.Raw(bytes((0xA0 | size,)) + data)
    if size < 0x1_0000:
        return msgspec.Raw(b"\xda" + size.to_bytes(2, "big") + data)
    return msgspec.Raw(b"\xdb" + size.to_bytes(4, "big") + data)
