"""Lengths of time as people write them: `90s`, `30m`, `1h30m`, `2d`."""

from __future__ import annotations

import re

from event_router.cli.failures import WrongUsage

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_SECONDS = (86_400, 3_600, 60, 1)


def parse_duration(text: str, option: str, *, longest_s: int) -> int:
    """Return the milliseconds of a length of time.

    Raises:
        WrongUsage: it is none, nothing, or longer than allowed; names the option.
    """
    found = _DURATION.fullmatch(text)
    parts = [int(part or 0) for part in found.groups()] if found else []
    seconds = sum(part * unit for part, unit in zip(parts, _SECONDS, strict=False))
    if not 0 < seconds <= longest_s:
        raise WrongUsage(
            f"{option} {text!r} is no length of time up to {spoken(longest_s)}; write 90s, 30m, 1h30m or 2d"
        )
    return seconds * 1000


def spoken(seconds: float) -> str:
    """Return a length of time in its two largest units, such as `1h30m`; below a minute with tenths."""
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds % 1 else f"{seconds:.0f}s"
    left, words = int(seconds), list[str]()
    for name, unit in zip("dhms", _SECONDS, strict=True):
        count, left = divmod(left, unit)
        if count or words:
            words.append(f"{count}{name}" if count else "")
    return "".join(words[:2])
