"""How a dead letter is written: the entry's fields, byte for byte, and behind them the router's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from event_router.core.decoding import opened
from event_router.core.errors import InvalidEvent
from event_router.core.keys import dead_letter_stream

FEWEST_RAW_FIELDS = 1_000
"""A `dlq_raw` of fewer fields is a producer's own: the router packs only what is above 3,900 fields."""

_STR_LENGTH_BYTES = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes:
        dlq: the stream it stands in, `dlq:{stream}`.
        id: its id there.
        fields: names and values of the original entry, in their order, with repetitions.
        raw: whether the fields are packed into one `dlq_raw`, because a script cannot XADD so many.
        stream: the original stream; empty when this is no letter of the router's.
        origin_id: the original entry's id.
        deliveries: how often its handler was started.
        time: when it became a dead letter, as written.
        size: bytes of the letter.
    """

    dlq: str
    id: str
    fields: tuple[tuple[bytes, bytes], ...]
    raw: bool
    stream: str
    origin_id: str
    reason: str
    error: str
    deliveries: int
    consumer: str
    time: str
    size: int

    @property
    def type(self) -> str | None:
        """The event type as the producer wrote it, also that of a CloudEvent; None when there is none."""
        for wanted in (b"type", b"ce_type"):
            for name, value in self.fields:
                if name == wanted:
                    return text(value)
        return self._member("type") or self._member("type", b"cloudevent")

    @property
    def why_not_replayable(self) -> str:
        """Why the letter cannot go back to its stream; empty when it can."""
        if self.dlq != dead_letter_stream(self.stream):
            return "the router did not write it"
        return "" if self.fields else "its entry was trimmed away, its fields are lost"

    @property
    def missing_timestamp(self) -> str | None:
        """The event time to add when it goes back: the original entry id's milliseconds where it has none."""
        values = dict(self.fields)
        try:
            _, head, _ = opened(values)
        except InvalidEvent:
            head = None
        if b"timestamp" in values or (head or {}).get("timestamp") is not None:
            return None
        milliseconds = self.origin_id.partition("-")[0]
        return milliseconds if milliseconds.isdecimal() else None

    def row(self) -> dict[str, str | int | None]:
        """The letter as one row of a list, without its fields."""
        return {
            "stream": self.stream,
            "id": self.id,
            "origin_id": self.origin_id,
            "type": self.type,
            "reason": self.reason,
            "error": self.error,
            "deliveries": self.deliveries,
            "time": self.time,
        }

    def _member(self, name: str, within: bytes = b"data") -> str | None:
        """What the entry's `data` object, or another one, holds under a name, as text."""
        data = next((value for field, value in reversed(self.fields) if field == within), None)
        if data is None:
            return None
        try:
            found: Any = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        member = found.get(name) if isinstance(found, dict) else None
        return None if member is None else str(member)


def parse_letter(dlq: str, letter_id: str, flat: Sequence[bytes]) -> Letter:
    """Read a letter from the names and values, in turn, of its entry.

    The router's fields are the last run of `dlq_` names that begins with `dlq_stream`, so that an entry
    which itself has such names stays whole.
    """
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    begin = len(pairs)
    own: dict[bytes, bytes] = {}
    for position in range(len(pairs) - 1, -1, -1):
        if not pairs[position][0].startswith(b"dlq_"):
            break
        if pairs[position][0] == b"dlq_stream":
            begin, own = position, dict(pairs[position:])
            break
    fields, raw = pairs[:begin], False
    if own and len(fields) == 1 and fields[0][0] == b"dlq_raw":
        unpacked = unpack(fields[0][1])
        if unpacked is not None and len(unpacked) % 2 == 0 and len(unpacked) >= 2 * FEWEST_RAW_FIELDS:
            fields, raw = list(zip(unpacked[::2], unpacked[1::2], strict=True)), True
    deliveries = own.get(b"dlq_deliveries", b"0")
    return Letter(
        dlq=dlq,
        id=letter_id,
        fields=tuple(fields),
        raw=raw,
        stream=text(own.get(b"dlq_stream", b"")),
        origin_id=text(own.get(b"dlq_id", b"")),
        reason=text(own.get(b"dlq_reason", b"")),
        error=text(own.get(b"dlq_error", b"")),
        deliveries=int(deliveries) if deliveries.isdigit() else 0,
        consumer=text(own.get(b"dlq_consumer", b"")),
        time=text(own.get(b"dlq_time", b"")),
        size=sum(map(len, flat)),
    )


def text(value: bytes) -> str:
    """Bytes as text; what is no UTF-8 is shown with backslash escapes."""
    return value.decode("utf-8", "backslashreplace")


def unpack(packed: bytes) -> list[bytes] | None:
    """Return the strings of a msgpack array, or None when the bytes are no such array.

    By hand, because Redis packs any bytes as msgpack `str`, and msgspec refuses those that are no UTF-8.
    See https://github.com/msgpack/msgpack/blob/master/spec.md.
    """
    if not packed:
        return None
    if packed[0] >> 4 == 0x9:
        count, position = packed[0] & 0x0F, 1
    elif packed[0] in (0xDC, 0xDD):
        position = 3 if packed[0] == 0xDC else 5
        count = int.from_bytes(packed[1:position])
    else:
        return None
    strings: list[bytes] = []
    while position < len(packed) and len(strings) < count:
        head = packed[position]
        width = _STR_LENGTH_BYTES.get(head, 0)
        if width:
            length = int.from_bytes(packed[position + 1 : position + 1 + width])
        elif head >> 5 == 0b101:
            length = head & 0x1F
        else:
            return None
        begin = position + 1 + width
        position = begin + length
        strings.append(packed[begin:position])
    return strings if len(strings) == count and position == len(packed) else None
