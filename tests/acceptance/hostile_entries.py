"""Entries that no router can use, as names and values in turn, and what their dead letters must say."""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """Names and values in turn, the reasons allowed, and what the error must mention."""

    words: list[bytes]
    reasons: set[bytes]
    mentions: bytes = b""


INVALID, UNKNOWN, TOO_LARGE = {b"invalid"}, {b"unknown_type"}, {b"too_large"}
EITHER = INVALID | UNKNOWN
MB = 1 << 20


def flat(*words: bytes | str) -> list[bytes]:
    """Words as bytes."""
    return [word.encode() if isinstance(word, str) else word for word in words]


def typed(written: bytes | str, reasons: set[bytes], mentions: bytes = b"") -> Bad:
    """An entry of some type."""
    return Bad(flat("type", written, "user_id", "1"), reasons, mentions)


def user(user_id: bytes | str) -> Bad:
    """A login of an identifier that is none."""
    return Bad(flat("type", "login", "user_id", user_id), INVALID, b"user_id")


def timed(timestamp: str) -> Bad:
    """A login at a time that is none."""
    return Bad(flat("type", "login", "user_id", "1", "timestamp", timestamp), INVALID, b"timestamp")


def login(name: str, value: bytes | str, reasons: set[bytes], mentions: bytes = b"") -> Bad:
    """A login with one more field."""
    return Bad(flat("type", "login", "user_id", "1", name, value), reasons, mentions)


def wide(fields: int, value: bytes) -> Bad:
    """A login of very many fields."""
    more = [word for n in range(fields - 2) for word in (f"f{n}", value)]
    return Bad(flat("type", "login", "user_id", "1", *more), TOO_LARGE)


def data(text: bytes, mentions: bytes = b"") -> Bad:
    """A `data` field."""
    return Bad([b"data", text], INVALID, mentions)


HOSTILE: dict[str, Bad] = {
    "no type": Bad(flat("user_id", "1"), INVALID, b"type"),
    "empty type": typed("", EITHER),
    "unknown type": typed("nothing", UNKNOWN, b"nothing"),
    "type of another domain": typed("chat:message", UNKNOWN),
    "CR, LF and ANSI in the type": typed("lo\r\ngin\x1b[31m\x1b]0;t\x07", EITHER),
    "a log line in the type": typed('x"}\n{"level": "error", "event": "x', EITHER),
    "type no UTF-8": typed(b"\xfflogin", EITHER, b"type"),
    "type of 1,000,000 bytes": typed("x" * 1_000_000, EITHER),
    "user_id missing": Bad(flat("type", "login", "ip", "::1"), INVALID, b"user_id"),
    "user_id empty": user(""),
    "user_id no UTF-8": user(b"a\xff\x00\xfe"),
    "user_id with NUL": user("a\0b"),
    "user_id with a line break": user("a\nb"),
    "user_id with a C1 control": user("a\x85b"),
    "user_id of 513 bytes": user("x" * 513),
    "user_id of 171 letters, 513 bytes": user("語" * 171),
    "user_id a list": data(b'{"type": "login", "user_id": ["a"]}', b"user_id"),
    "user_id true": data(b'{"type": "login", "user_id": true}', b"user_id"),
    "user_id 1.5": data(b'{"type": "login", "user_id": 1.5}', b"user_id"),
    "user_id a lone surrogate": data(b'{"type": "login", "user_id": "\\ud800"}'),
    "device an object": data(b'{"type": "login", "user_id": 1, "device": {}}', b"device"),
    "device no UTF-8": login("device", b"\xc3\x28", INVALID, b"device"),
    "device of 100,000 bytes": login("device", "x" * 100_000, INVALID, b"device"),
    "empty JSON": data(b"", b"data"),
    "broken JSON": data(b'{"type": "login", "user_id": ', b"data"),
    "JSON no object": data(b'"login"', b"data"),
    "JSON no UTF-8": data(b'{"type": "login", "user_id": "\xff"}'),
    "deep JSON": data(b'{"type": "login", "x": ' + b"[" * 400_000, b"data"),
    "deep and closed JSON": data(b'{"type": "login", "user_id": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "NaN in JSON": data(b'{"type": "login", "user_id": NaN}'),
    "timestamp no time": timed("soon"),
    "timestamp empty": timed(""),
    "timestamp in 2999": timed("2999-01-01T00:00:00Z"),
    "timestamp beyond any calendar": timed("9" * 30),
    "timestamp true": data(b'{"type": "login", "user_id": 1, "timestamp": true}', b"timestamp"),
    "producer's id empty": login("id", "", INVALID, b"id"),
    "10 MB in a field": login("device", b"\xfe" * 10 * MB, TOO_LARGE),
    "3,000 fields": wide(3_000, b"v"),
    "10,000 fields": wide(10_000, b"\xff\r\n"),
}
