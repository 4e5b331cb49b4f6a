"""One bad entry of every kind whose reason the contract leaves no doubt about."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from tests.oracle.reading import LARGEST_ENTRY, LONGEST_IDENTIFIER

AUTH, CHAT, SCAN, INFO = "events:auth", "events:chat", "events:scan", "events:info"
STEP = {"type": "progress", "job_id": "never", "stage": "s", "status": "running"}
Bad = tuple[str, dict[bytes, bytes], str]


def planted(choose: random.Random, now_ms: int) -> Iterator[Bad]:
    """Stream, fields and the reason of the dead letter each must become."""
    for stream, fields, reason in _bad(now_ms):
        entry = {_bytes(name): _bytes(value) for name, value in fields.items()}
        entry[b"nonce"] = b"%d" % choose.getrandbits(32)
        yield stream, entry, reason


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _login(user: str | bytes, **more: str | bytes) -> dict[str, str | bytes]:
    return {"type": "login", "user_id": user, **more}


def _data(**payload: object) -> dict[str, str | bytes]:
    return {"data": json.dumps(payload)}


def _invalid_logins(now_ms: int) -> list[dict[str, str | bytes]]:
    nested = b"[" * 100_000 + b"]" * 100_000
    return [
        {"user_id": "no type"},
        {"type": "login"},
        _login(""),
        _login("two\nlines"),
        _login("nul\0"),
        _login("escape\x1b[31m"),
        _login("x" * (LONGEST_IDENTIFIER + 1)),
        _login("語" * (LONGEST_IDENTIFIER // 3 + 1)),
        _login(b"\xff\xfe"),
        _login("never", device=b"\xc3\x28"),
        _login("never", device="x" * 70_000),
        _login("never", timestamp="yesterday"),
        _login("never", timestamp="2026-13-45T00:00:00Z"),
        _login("never", timestamp="2999-01-01T00:00:00Z"),
        _login("never", timestamp=str(now_ms + 3 * 86_400_000)),
        {"data": '{"type": "login", "user_id": '},
        {"data": '["login", "never"]'},
        {"data": b'{"type": "login", "user_id": "\xff"}'},
        {"data": b'{"type": "login", "user_id": "never", "more": ' + nested + b"}"},
        _data(type="login", user_id=["never"]),
        _data(type="login", user_id=None),
        _data(type="login", user_id={"id": "never"}),
        _data(type="login", user_id="never", device={"kind": "phone"}),
    ]


def _bad(now_ms: int) -> Iterator[tuple[str, dict[str, str | bytes], str]]:
    yield from ((AUTH, fields, "invalid") for fields in _invalid_logins(now_ms))
    yield AUTH, {"type": "no_such_type", "user_id": "never"}, "unknown_type"
    yield AUTH, _data(type="message_sent", user_id="never"), "unknown_type"
    yield AUTH, _login("never", device="x" * (LARGEST_ENTRY + 1)), "too_large"
    yield CHAT, {"type": "feedback", "user_id": "never"}, "invalid"
    yield CHAT, {"type": "feedback", "user_id": "never", "score": "6"}, "invalid"
    yield CHAT, {"type": "feedback", "user_id": "never", "score": "0"}, "invalid"
    yield CHAT, {"type": "feedback", "user_id": "never", "score": "many"}, "invalid"
    yield CHAT, _data(type="feedback", user_id="never", score=[5]), "invalid"
    yield CHAT, {"type": "message_complete", "user_id": "never"}, "invalid"
    yield CHAT, {**STEP}, "invalid"  # no seq
    yield SCAN, {**STEP, "seq": "-1"}, "invalid"
    yield SCAN, {**STEP, "seq": "1.5"}, "invalid"
    yield SCAN, {**STEP, "seq": "1", "progress": "101"}, "invalid"
    yield SCAN, {"type": "progress", "job_id": "never", "status": "running", "seq": "1"}, "invalid"
    yield SCAN, {"type": "scan_start", "job_id": "never"}, "invalid"
    yield SCAN, {"type": "scan:complete", "user_id": "never"}, "invalid"
    yield INFO, {"type": "article_fetched", "title": "no id"}, "invalid"
    yield INFO, {"type": "info:unheard_of", "article_id": "never"}, "unknown_type"
