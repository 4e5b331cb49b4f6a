"""How an entry reads by the published contract, written apart from the product."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST_ENTRY = 1 << 20
LONGEST_IDENTIFIER = 512
LONGEST_TEXT = 64_000
FUTURE_ALLOWED_MS = 24 * 3600 * 1000
ALIASES = {"chat:message": "message_sent", "scan:complete": "scan_complete"}


@dataclass(frozen=True)
class Accepted:
    """An entry as XADD took it; the server's answer gave ``id``."""

    stream: str
    id: str
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True)
class Event:
    """What an entry says: ``data`` holds the payload's declared fields only, those that are there."""

    stream: str
    id: str
    domain: str
    type: str
    time_ms: int
    data: Mapping[str, str | int]
    given_id: str | None = None
    """The producer's own; what repeats it in its stream does not count."""
    repeated: list[tuple[int, int]] = field(default_factory=list)
    """Orders of the entries that repeat it: one of them may be the one that counted."""

    @property
    def order(self) -> tuple[int, int]:
        """The entry id as numbers."""
        milliseconds, _, sequence = self.id.partition("-")
        return int(milliseconds), int(sequence)

    @property
    def time(self) -> str:
        return (EPOCH + timedelta(milliseconds=self.time_ms)).strftime("%Y-%m-%dT%H:%M:%S.") + (
            f"{self.time_ms % 1000:03d}Z"
        )

    @property
    def day(self) -> str:
        return self.time[:10]


class Refused(Exception):
    """The entry is a dead letter; ``reason`` is the one the contract names."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


def _identifier(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not 1 <= len(text.encode()) <= LONGEST_IDENTIFIER:
        raise ValueError("no identifier")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("control characters")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value.encode()) > LONGEST_TEXT:
        raise ValueError("no text of at most 64 kB")
    return value


def _whole(least: int, most: float = float("inf")) -> Callable[[object], int]:
    def number(value: object) -> int:
        if isinstance(value, str) and value.removeprefix("-").isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError("no whole number in range")
        return value

    return number


Payload = dict[str, Callable[[object], str | int]]

_STEP: tuple[Payload, Payload] = (
    {"job_id": _identifier, "stage": _text, "status": _text, "seq": _whole(0)},
    {"progress": _whole(0, 100), "message": _text, "result": _text, "user_id": _identifier},
)
_SCAN: tuple[Payload, Payload] = ({"user_id": _identifier, "job_id": _identifier}, {"result": _text})

# (domain, type): required fields, optional fields
PAYLOADS: dict[tuple[str, str], tuple[Payload, Payload]] = {
    ("auth", "login"): ({"user_id": _identifier}, {"ip": _text, "device": _text}),
    ("auth", "logout"): ({"user_id": _identifier}, {}),
    ("chat", "message_sent"): ({"user_id": _identifier}, {"job_id": _identifier, "message_id": _identifier}),
    ("chat", "message_complete"): ({"user_id": _identifier, "job_id": _identifier}, {}),
    ("chat", "feedback"): (
        {"user_id": _identifier, "score": _whole(1, 5)},
        {"job_id": _identifier, "comment": _text},
    ),
    ("chat", "progress"): _STEP,
    ("scan", "progress"): _STEP,
    ("scan", "scan_start"): _SCAN,
    ("scan", "scan_complete"): _SCAN,
    ("info", "article_fetched"): (
        {"article_id": _identifier},
        {"title": _text, "url": _text, "source": _text, "published_at": _text},
    ),
}


def read(entry: Accepted) -> Event:
    """The event an entry holds, or Refused with the dead letter's reason."""
    if sum(len(name) + len(value) for name, value in entry.fields.items()) > LARGEST_ENTRY:
        raise Refused("too_large", "entry")
    values = _merged(entry.fields)
    domain = entry.stream.split(":")[1]
    kind = _kind(domain, values.get("type"))
    if (domain, kind) not in PAYLOADS:
        raise Refused("unknown_type", kind)
    required, optional = PAYLOADS[domain, kind]
    data: dict[str, str | int] = {}
    for name, convert in (required | optional).items():
        if values.get(name) is not None:
            data[name] = _converted(name, convert, values[name])
        elif name in required:
            raise Refused("invalid", f"{name} is missing")
    time_ms = _time_ms(entry.id, values.get("timestamp"))
    given = values.get("id")
    given_id = None if given is None else str(_converted("id", _identifier, given))
    return Event(entry.stream, entry.id, domain, kind, time_ms, data, given_id)


def _merged(fields: Mapping[bytes, bytes]) -> dict[str, object]:
    """The keys of `data` and the fields beside it, which win. Bytes stay bytes until they are used."""
    values: dict[str, object] = {}
    if b"data" in fields:
        try:
            merged = json.loads(fields[b"data"].decode())
        except (ValueError, RecursionError):
            raise Refused("invalid", "data is no JSON") from None
        if not isinstance(merged, dict):
            raise Refused("invalid", "data is no object")
        values.update(merged)
    values.update({name.decode(errors="replace"): value for name, value in fields.items() if name != b"data"})
    return values


def _kind(domain: str, value: object) -> str:
    if value is None:
        raise Refused("invalid", "type is missing")
    kind = str(_converted("type", _text, value))
    return ALIASES.get(kind, kind.removeprefix(f"{domain}:"))


def _converted(name: str, convert: Callable[[object], str | int], value: object) -> str | int:
    try:
        return convert(value.decode() if isinstance(value, bytes) else value)
    except ValueError as error:
        raise Refused("invalid", f"{name}: {error}") from None


def _time_ms(entry_id: str, timestamp: object) -> int:
    """Event time: the timestamp, else the entry id's; milliseconds since 1970."""
    accepted_ms = int(entry_id.partition("-")[0])
    if timestamp is None:
        return accepted_ms
    time_ms = int(_converted("timestamp", _moment, timestamp))
    if time_ms > accepted_ms + FUTURE_ALLOWED_MS:
        raise Refused("invalid", "timestamp: in the future")
    return time_ms


def _moment(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError("no time")
    if value.isdecimal():
        return int(value)
    moment = datetime.fromisoformat(value)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
