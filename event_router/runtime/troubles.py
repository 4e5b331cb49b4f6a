"""What Redis refuses or denies on single streams, apart from all the others."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from event_router.core.errors import NoGroup, RedisDenied, RedisRefused
from event_router.runtime.connectivity import Connectivity
from event_router.runtime.observer import Observer

GROUP = "group"
"""Creating the group. While it cannot be, its absence is part of this trouble, and news to nobody."""
ROLE = "streams"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What Redis said, and whether the router waits for a permission."""

    reason: str
    waits: bool


class StreamTroubles:
    """Knows what is refused or denied on which stream, so that callers go on with the other streams.

    A key that is no stream, or a rule that leaves one out, is no other stream's trouble. For want of a
    permission the router is not ready; what is refused is reported when a stream's refusals begin and when
    the last of them has ended. Callers ask again in their own time, and say when they no longer do.
    """

    def __init__(self, connectivity: Connectivity, observer: Observer) -> None:
        self._connectivity = connectivity
        self._observer = observer
        self._open: dict[tuple[str, str], Trouble] = {}  # by what and stream

    def __repr__(self) -> str:
        return f"<StreamTroubles {', '.join(map(_named, self._open)) or 'none'}>"

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, place: tuple[str, str]) -> bool:
        """Whether this (what, stream) is refused or denied."""
        return place in self._open

    def of(self, what: str) -> list[str]:
        """Return the streams on which this is refused or denied."""
        return [stream for asked, stream in self._open if asked == what]

    def reasons(self) -> dict[str, str]:
        """Return what was met first on each stream that is in trouble."""
        found: dict[str, str] = {}
        for (_, stream), trouble in self._open.items():
            found.setdefault(stream, trouble.reason)
        return found

    @contextlib.contextmanager
    def apart(self, what: str, stream: str, *, needed: bool = True) -> Iterator[None]:
        """Keep what is refused or denied within from whatever follows.

        `needed`: whether the router is not ready without the permission.
        """
        try:
            yield
        except (RedisRefused, RedisDenied) as error:
            self.met(what, stream, error, needed=needed)
        except NoGroup:
            if (GROUP, stream) not in self._open:
                raise
        else:
            self.over(what, stream)

    def met(self, what: str, stream: str, error: RedisRefused | RedisDenied, *, needed: bool = True) -> None:
        """Note that this was refused or denied."""
        place = (what, stream)
        before = self._open.get(place)
        trouble = Trouble(f"{_named(place)}: {error}", needed and isinstance(error, RedisDenied))
        if before is not None and before.waits != trouble.waits:
            self.over(what, stream)
        told = self._is_refused(stream)
        self._open[place] = trouble
        if trouble.waits:
            self._connectivity.denied(ROLE, trouble.reason, _named(place))
        elif not told:
            self._observer.stream_refused(stream, trouble.reason)

    def over(self, what: str, stream: str) -> None:
        """Note that this was answered, or that nobody asks for it any more."""
        trouble = self._open.pop((what, stream), None)
        if trouble is None:
            return
        if trouble.waits:
            self._connectivity.answered(ROLE, _named((what, stream)))
        elif not self._is_refused(stream):
            self._observer.stream_accepted(stream)

    def only(self, what: str, asked: Collection[str]) -> None:
        """Note that this is asked of no streams but these any more."""
        for stream in self.of(what):
            if stream not in asked:
                self.over(what, stream)

    def _is_refused(self, stream: str) -> bool:
        return any(of == stream and not trouble.waits for (_, of), trouble in self._open.items())


def _named(place: tuple[str, str]) -> str:
    what, stream = place
    return f"{what} of {stream}"
