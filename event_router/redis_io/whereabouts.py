"""Where an entry is and what happened to it, as far as Redis knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from event_router.core.entry_id import parse_id
from event_router.redis_client.script import Caller, Script

State = Literal["undelivered", "pending", "settled", "trimmed", "deleted", "never existed"]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """An entry at one moment.

    Attributes:
        state: `trimmed`: it was removed from the stream before it was settled, unread or while pending;
            `deleted`: it is not in the stream although older ones are, removed by XDEL or never added.
        fields: names and values in turn, None when it is not in the stream.
        group_exists: without a group nothing was delivered.
        last_delivered: the newest id that the group has delivered.
        last_id: the newest id of the stream.
        first_id: the oldest id of the stream; empty without entries.
        server_ms: epoch milliseconds on the server.
        consumer: who holds it; empty when it is not pending.
        idle_ms: since it was last delivered, renewed or scheduled.
        consumer_idle_ms: since its consumer was last heard of; None where it is not known.
        deliveries: how often its handler was started.
        whole: whether the stream has as many entries as were ever added.
    """

    stream: str
    id: str
    state: State
    fields: list[bytes] | None
    group_exists: bool
    last_delivered: str
    last_id: str
    first_id: str
    server_ms: int
    consumer: str = ""
    idle_ms: int = 0
    consumer_idle_ms: int | None = None
    deliveries: int = 0
    whole: bool = False

    @property
    def in_stream(self) -> bool:
        """Whether the entry itself is still there."""
        return self.fields is not None


async def locate(caller: Caller, stream: str, group: str, entry_id: str) -> Whereabouts:
    """Return where an entry is. Raises what `Link.call` raises; RedisRefused where the key is no stream."""
    reply = await Script("locate", fragments=("fields",)).run(caller, (stream,), (group, entry_id))
    now, length, last, first, fields, deleted, exists, delivered, held, consumer_idle, whole = reply
    last_id, delivered_id = last.decode(), delivered.decode()
    state = _state(
        parse_id(entry_id),
        there=fields is not None,
        pending=bool(held),
        delivered=parse_id(delivered_id) if exists else None,
        first=parse_id(first.decode()) if length else None,
        last=parse_id(last_id),
        deleted=parse_id(deleted.decode()),
        whole=bool(whole),
    )
    return Whereabouts(
        stream,
        entry_id,
        state,
        fields,
        bool(exists),
        delivered_id,
        last_id,
        first.decode(),
        int(now),
        consumer=held[0].decode("utf-8", "backslashreplace") if held else "",
        idle_ms=held[1] if held else 0,
        consumer_idle_ms=consumer_idle if consumer_idle >= 0 else None,
        deliveries=held[2] if held else 0,
        whole=bool(whole),
    )


def _state(
    entry: tuple[int, int],
    *,
    there: bool,
    pending: bool,
    delivered: tuple[int, int] | None,
    first: tuple[int, int] | None,
    last: tuple[int, int],
    deleted: tuple[int, int],
    whole: bool,
) -> State:
    if pending:
        return "pending" if there else "trimmed"
    if there:
        return "settled" if delivered is not None and entry <= delivered else "undelivered"
    if whole or entry > last or (first is not None and first < entry and deleted < entry):
        return "never existed"
    if first is not None and first < entry:
        return "deleted"
    return "settled" if delivered is not None and entry <= delivered else "trimmed"
