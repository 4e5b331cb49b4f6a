"""The commit: effects and acknowledgement of a batch in one script call (`scripts/commit.lua`).

Everything is text to the script: cmsgpack refuses msgpack's `bin`, drops trailing nils and loses
digits above 2^53. Integers travel as decimals, but for increments of at most 15 digits, absence as
`false`, raw bytes as msgpack `str`. The values of all units follow one another in one array, since
tables are what costs the script most to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from event_router.core.channels import PRESENCE
from event_router.core.effects import Effects, Emission
from event_router.core.hash_effects import NOTHING, HashEffects
from event_router.core.keys import KeyNames, checkpoint_key, dead_letter_stream, dedupe_key
from event_router.core.outcome import Answer, Answers, DeadLetter, Settlement, Verdict
from event_router.core.values import text_bytes
from event_router.redis_client.connections import Link
from event_router.redis_client.script import Script
from event_router.redis_io.commit_layout import add_effects, as_branch

ORDINARY_BYTES = 1_024
"""A unit that packs into less is an ordinary one."""
BYTES_OF_WEIGHT = 4_096
FIELDS_OF_WEIGHT = 32
"""What weighs as much as one ordinary event in a batch, so that a batch stays short for Redis."""

_ANSWERS = {verdict.value: Answer(verdict) for verdict in Verdict}
_pack = msgspec.msgpack.Encoder().encode


class Prepared(msgspec.Struct, gc=False):
    """One entry's part of a commit as the script takes it.

    Attributes:
        packed: its values, one behind the other, each in msgpack.
        count: how many these are.
        weight: its share of a batch, 1 for an ordinary event, more for large ones.
        presence: it changes who is present.
    """

    stream: str
    packed: bytes
    count: int
    weight: int
    presence: bool = False


class Commits:
    """Commits batches over one connection of its own.

    Args:
        presence_ttl_ms: how long a change of presence counts.
        dedupe_ttl_ms: how long a producer's id is remembered; 0 for not at all.
    """

    def __init__(
        self,
        link: Link,
        group: str,
        *,
        names: KeyNames | None = None,
        presence_ttl_ms: int = 60_000,
        dedupe_ttl_ms: int = 3_600_000,
    ) -> None:
        names = names or KeyNames()
        self._link = link
        self._group = group
        self._presence = (
            presence_ttl_ms,
            names.outbox(str(PRESENCE)),
            str(names.outbox_maxlen),
            str(PRESENCE),
        )
        self._dedupe_ttl_ms = dedupe_ttl_ms
        self._script = Script(
            "commit",
            fragments=("integers", "versions", "fields", "entry_ids", "presence", "presence_announced"),
        )

    def prepare(self, settlement: Settlement) -> Prepared:
        """Pack one entry's part. Raises StateError for effects that contradict each other."""
        stream, work = settlement.stream, settlement.work
        values: list[Any] = [0, stream, settlement.id, False, 0]
        if isinstance(work, DeadLetter):
            if settlement.decided_on is not None:
                for effects in settlement.decided_on.hashes.values():
                    if effects.reads:
                        add_effects(values, HashEffects(effects.key, effects.reads, NOTHING), alone=True)
            values[3] = ([_letter(settlement, work)], False, self._dedupe(settlement, sets_mark=False))
        else:
            if work.presence:
                values[4] = len(work.presence)
                for change in work.presence:
                    values += change
            alone = not work.branches
            if not alone:
                work.refuse_contradictions()
            for effects in work.hashes.values():
                add_effects(values, effects, alone)
            if not alone or work.emissions or settlement.unique_id is not None:
                branches = [*map(as_branch, work.branches)]
                values[3] = (work.emissions or False, branches or False, self._dedupe(settlement))
        count = values[0] = len(values)
        packed = _encoded(values)[1 if count < 16 else 3 if count < 0x1_0000 else 5 :]  # without its header
        weight = 1 if len(packed) < ORDINARY_BYTES else _weight(settlement, packed)
        return Prepared(stream, packed, count, weight, values[4] > 0)

    def _dedupe(self, settlement: Settlement, *, sets_mark: bool = True) -> Any:
        if settlement.unique_id is None or not self._dedupe_ttl_ms:
            return False
        return dedupe_key(settlement.stream, settlement.unique_id), sets_mark and str(self._dedupe_ttl_ms)

    def pack(self, batch_of: Sequence[Settlement | Prepared]) -> bytes:
        """Return the batch as the script takes it; sending it again unchanged is safe."""
        units = [self.prepare(part) if isinstance(part, Settlement) else part for part in batch_of]
        streams = list({unit.stream: None for unit in units})
        presence = any(unit.presence for unit in units) and self._presence
        head = _pack((self._group, checkpoint_key(self._group), streams, presence))
        size = (1 + sum(unit.count for unit in units)).to_bytes(4, "big")
        return b"".join([b"\xdd", size, head, *[unit.packed for unit in units]])

    async def send(self, packed: bytes) -> Answers:
        """Commit a packed batch and return the answer for each entry, in order.

        Raises:
            RedisUnavailable: whether it was committed is unknown; send it again unchanged.
            NoGroup: nothing was written; create the group, then send it again.
        """
        *reply, microseconds = await self._script.run(self._link, args=(packed,))
        answers = Answers(
            _ANSWERS[answer]
            if type(answer) is int
            else Answer(Verdict(answer[0]), answer[1].decode("utf-8", "backslashreplace"))
            for answer in reply
        )
        answers.blocked_s = microseconds / 1e6
        return answers


def packed_places(places: Iterable[tuple[str, str]]) -> bytes:
    """Return (key, field) pairs as the read script takes them."""
    return _encoded([*chain.from_iterable(places)])


def _encoded(message: Any) -> bytes:
    try:
        return _pack(message)
    except UnicodeEncodeError:  # some text is not UTF-8: rare, so it is looked for only now
        return _pack(_encodable(message))


def _weight(settlement: Settlement, packed: bytes) -> int:
    unit = settlement.decided_on if isinstance(settlement.work, DeadLetter) else settlement.work
    fields = 0 if unit is None else _fields(unit)
    return 1 + len(packed) // BYTES_OF_WEIGHT + fields // FIELDS_OF_WEIGHT


def _fields(effects: Effects) -> int:
    """Return how many fields the effects, and what was read, are about."""
    fields = sum(len(of.changes) + len(of.reads or ()) for of in effects.hashes.values())
    return fields + sum(map(_fields, effects.branches))


def _letter(settlement: Settlement, letter: DeadLetter) -> list[Any]:
    entry = letter.entry(settlement.stream, settlement.id)
    return [dead_letter_stream(settlement.stream), False, [*map(_raw, entry)]]


def _encodable(value: Any) -> Any:
    """Return a message with each text that is not UTF-8 (surrogate escapes) as raw bytes.

    Raises:
        StateError: half a surrogate pair, which has no bytes.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return _raw(text_bytes(value))
    elif isinstance(value, list | tuple):
        return [_encodable(part) for part in value]
    elif isinstance(value, Emission):
        return [_encodable(getattr(value, name)) for name in value.__struct_fields__]
    return value


def _raw(data: bytes) -> msgspec.Raw:
    """Return bytes as a msgpack str, whether or not they are UTF-8."""
    size = len(data)
    if size < 32:
        return msgspec.Raw(bytes((0xA0 | size,)) + data)
    if size < 0x1_0000:
        return msgspec.Raw(b"\xda" + size.to_bytes(2, "big") + data)
    return msgspec.Raw(b"\xdb" + size.to_bytes(4, "big") + data)
