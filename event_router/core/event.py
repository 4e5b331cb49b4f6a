"""The entry as it stands in a stream, and the event a handler receives."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from event_router.core.timestamps import format_time, to_datetime, utc_day

Data = TypeVar("Data")


class Kind:
    """Marks how the text of a payload field is checked before conversion (see `payloads`)."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Kind({self.name!r})"


IDENTIFIER = Kind("identifier")
TEXT = Kind("text")
JSON = Kind("json")

Identifier = Annotated[str, IDENTIFIER]
"""Text of 1 to 512 bytes of UTF-8 without control characters; a JSON integer becomes its decimals."""
Text = Annotated[str, TEXT]
"""Text of at most 64 kB of UTF-8. A plain `str` field is checked the same way."""
JsonText = Annotated[str, JSON]
"""Text of at most 64 kB; any other JSON value is kept as its JSON text."""
Score = Annotated[int, Meta(ge=1, le=5)]
Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""The number of a step in its job; steps may arrive in any order."""
Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]


class Entry(msgspec.Struct, eq=False, gc=False):
    """One XADDed record as it was read: names and values alternate in `fields`, as bytes.

    Attributes:
        deliveries: the group's delivery counter, which counts handler starts.
        time_ms: epoch milliseconds in the entry's id.
    """

    stream: str
    id: str
    fields: list[bytes]
    deliveries: int = 1
    time_ms: int = -1

    def __post_init__(self) -> None:
        if self.time_ms < 0:
            self.time_ms = int(self.id.partition("-")[0])

    def __repr__(self) -> str:
        return f"<Entry {self.stream} {self.id} deliveries={self.deliveries}>"

    @property
    def size(self) -> int:
        """Bytes of all names and values."""
        return sum(map(len, self.fields))


class Event(msgspec.Struct, Generic[Data], kw_only=True, eq=False):
    """A decoded entry, as a handler receives it.

    Attributes:
        id: the entry's id in its stream.
        stream: the stream it stands in.
        domain: the handler's domain, `auth` for `events:auth`.
        type: the event type without prefix, aliases resolved.
        key: the ordering key, `job_id` for jobs; events of one key go to one shard.
        data: the payload, an instance of the type the handler declares.
        time_ms: event time in epoch milliseconds: the producer's `timestamp`, else the entry id's.
        attempt: 1 for the first start of the handler on this entry.
        producer_id: the producer's own `id`, if it gave one.
        source: the `source` of a CloudEvent, within which its `id` is unique; None for other events.
        traceparent: the W3C trace context, if the producer gave one.
    """

    id: str
    stream: str
    domain: str
    type: str
    key: str
    data: Data
    time_ms: int
    attempt: int = 1
    producer_id: str | None = None
    source: str | None = None
    traceparent: str | None = None

    def __repr__(self) -> str:
        return f"<Event {self.domain}:{self.type} {self.stream} {self.id} attempt={self.attempt}>"

    @property
    def unique_id(self) -> str | None:
        """What two entries of one stream share if one repeats the other; None without a producer's `id`."""
        if self.source is None or self.producer_id is None:
            return self.producer_id
        return f"{self.source}\x1f{self.producer_id}"  # neither can hold a control character

    @property
    def time(self) -> datetime:
        """Event time as an aware UTC datetime."""
        return to_datetime(self.time_ms)

    @property
    def timestamp(self) -> str:
        """Event time as `YYYY-MM-DDTHH:MM:SS.mmmZ`."""
        return format_time(self.time_ms)

    @property
    def day(self) -> date:
        """UTC day of the event time."""
        return utc_day(self.time_ms)


AnyEvent = Event[Any]
