"""A stream that nobody reads for a while, because an operator said so."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from event_router.core.keys import OWN_PREFIX


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a stream is paused, and until when.

    Attributes:
        stream: the stream that is not read.
        reason: what the operator gave as the reason.
        by: who paused it.
        since_ms: epoch milliseconds of the server when it was paused; None where it is not known.
        until_ms: epoch milliseconds of the server when it ends by itself; None: only by `resume`.
    """

    stream: str
    reason: str
    by: str = ""
    since_ms: int | None = None
    until_ms: int | None = None


class _Stored(msgspec.Struct, omit_defaults=True):
    reason: str
    by: str = ""
    since_ms: int | None = None
    until_ms: int | None = None


_DECODER = msgspec.json.Decoder(_Stored)


def pause_key(group: str, stream: str) -> str:
    """Return the key whose presence pauses a stream for a group."""
    return f"{OWN_PREFIX}:pause:{group}:{stream}"


def stored_pause(pause: Pause) -> bytes:
    """Return the text under which a pause is stored."""
    return msgspec.json.encode(_Stored(pause.reason, pause.by, pause.since_ms, pause.until_ms))


def parse_pause(stream: str, raw: bytes) -> Pause:
    """Return the pause in a stored text; any text pauses, so that one set by hand does what it says."""
    try:
        found = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Pause(stream, raw.decode("utf-8", "backslashreplace"))
    return Pause(stream, found.reason, found.by, found.since_ms, found.until_ms)
