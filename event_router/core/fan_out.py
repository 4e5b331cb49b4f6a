"""The fan-out log without I/O: what becomes of its entries, and how many were trimmed unread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from event_router.core.entry_id import parse_id
from event_router.core.errors import InvalidMessage
from event_router.core.keys import OWN_PREFIX
from event_router.core.timestamps import shortened

START = "0-0"
UNKNOWN = "unknown"
"""The channel label of messages that were trimmed away unread: nobody knows where they were to go."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a fan-out log: a message and its channel."""

    id: str
    channel: bytes
    type: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fan-out log is published.

    Attributes:
        id: the last entry that was published.
        seen: how many entries were ever added to the log up to this one, trimmed ones included.
    """

    id: str = START
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """What a fan-out log holds at one moment. Source: XINFO STREAM.

    Attributes:
        added: entries that were ever added.
        length: entries it holds.
        first: id of the oldest it holds; empty without any.
        last: id of the newest ever added.
    """

    added: int = 0
    length: int = 0
    first: str = ""
    last: str = START


def relay_key(outbox: str) -> str:
    """Return the hash that keeps who publishes a fan-out log, and how far it is published."""
    return f"{OWN_PREFIX}:relay:{outbox}"


def record(entry_id: str, fields: Sequence[bytes]) -> Record:
    """Return an entry's record. Raises InvalidMessage where it names no channel or has no message."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    channel, message = pairs.get(b"channel"), pairs.get(b"message")
    if not channel or message is None:
        raise InvalidMessage(f"fan-out entry {entry_id} has no channel or no message: nobody can receive it")
    return Record(entry_id, channel, pairs.get(b"type", b"").decode("utf-8", "replace"), message)


def published_form(message: bytes, entry_id: str, domain: str) -> bytes:
    """Return a message as it is published: with the entry's id, and the domain where it names none.

    Ids are unique within one log only; with the domain they are so on a channel that several domains use.

    Raises:
        InvalidMessage: it is no JSON object.
    """
    try:
        members: dict[str, object] = {"id": entry_id, "domain": domain, **_OBJECT.decode(message)}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(
            f"fan-out entry {entry_id} holds no JSON object ({error}): {shortened(message)}"
        ) from None
    members["id"] = entry_id
    return msgspec.json.encode(members)


def unseen_before(extent: Extent, progress: Progress) -> int | None:
    """Return how many entries were trimmed unread; below 0 if the log was made anew, None if it is not known.

    How many were added up to a place is known at the log's end, and where everything before the first
    entry is gone. Between the two nobody counts: what is missing is found the next time.
    """
    if extent.last == progress.id:
        return extent.added - progress.seen
    if not extent.first or parse_id(extent.first) > parse_id(progress.id):
        return extent.added - extent.length - progress.seen
    return None
