"""The many ways a producer may write one and the same event."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

ALIASES = {"message_sent": "chat:message", "scan_complete": "scan:complete"}


@dataclass(frozen=True)
class Happening:
    """Something to tell the router of, before it is written as an entry."""

    domain: str
    type: str
    time_ms: int
    payload: Mapping[str, str | int]


def write(happening: Happening, choose: random.Random) -> tuple[str, dict[bytes, bytes]]:
    """The stream and the fields of one entry: flat or JSON, any accepted form of type and time."""
    fields: dict[str, str | int] = {"type": _type(happening, choose)}
    timed = choose.random() >= 0.05  # without a timestamp the entry id tells the time
    if choose.random() < 0.05:
        fields["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    if choose.random() < 0.25:
        # What repeats an id does not count, and which of the two came first nobody knows: both say the time.
        fields["id"] = f"producer-{choose.getrandbits(64):x}"
        timed = True
    if choose.random() < 0.05:
        fields["not_declared"] = "ignored"
    match choose.randrange(10):
        case 0 | 1:
            inside = _numbers(
                fields | dict(happening.payload) | _time(happening, choose, timed, json_too=True)
            )
            outside: dict[str, str | int] = {}
        case 2:
            inside, outside = _numbers(happening.payload), fields | _time(happening, choose, timed)
        case 3:
            # Fields beside `data` win over what it says.
            inside = _numbers(happening.payload) | {"type": "overridden", "timestamp": "overridden"}
            outside = fields | dict(happening.payload) | _time(happening, choose, True)
        case _:
            inside, outside = {}, fields | dict(happening.payload) | _time(happening, choose, timed)
    entry = {name.encode(): str(value).encode() for name, value in outside.items()}
    if inside:
        entry[b"data"] = json.dumps(inside, ensure_ascii=choose.random() < 0.5).encode()
    return f"events:{happening.domain}", entry


def _numbers(payload: Mapping[str, str | int]) -> dict[str, str | int]:
    """Identifiers that are numbers may be JSON integers."""
    return {
        name: int(value) if name == "user_id" and str(value).isascii() and str(value).isdecimal() else value
        for name, value in payload.items()
    }


def _type(happening: Happening, choose: random.Random) -> str:
    chance = choose.random()
    if chance < 0.1:
        return f"{happening.domain}:{happening.type}"
    if chance < 0.4:
        return ALIASES.get(happening.type, happening.type)
    return happening.type


def _time(
    happening: Happening, choose: random.Random, timed: bool, *, json_too: bool = False
) -> dict[str, str | int]:
    if not timed:
        return {}
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=happening.time_ms)
    match choose.randrange(6):
        case 0:
            return {"timestamp": happening.time_ms if json_too else str(happening.time_ms)}
        case 1:
            return {"timestamp": moment.replace(tzinfo=None).isoformat(timespec="milliseconds")}
        case 2:
            away = timezone(timedelta(minutes=choose.choice((-480, -210, 60, 345, 840))))
            return {"timestamp": moment.astimezone(away).isoformat(timespec="milliseconds")}
        case 3 if happening.time_ms % 1000 == 0:
            return {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
        case _:
            return {"timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
