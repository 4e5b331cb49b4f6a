"""Where a consumer is in its streams, and which of its pending entries it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

from event_router.core.event import Entry


class ReadPosition:
    """What one `consume` has seen of its streams.

    Attributes:
        last: the newest id that a read of new entries gave of each stream.
        pending: the streams whose pending entries are still to be looked at, each from where on.
    """

    def __init__(self, streams: Sequence[str]) -> None:
        self.streams = list(dict.fromkeys(streams))
        self.last = dict.fromkeys(self.streams, "")
        self.pending = dict.fromkeys(self.streams, "")
        self._lost_beyond: dict[str, str] = {}
        self._lost_until = 0.0
        self._given: set[tuple[str, str]] = set()

    def lost(self, *, until: float) -> None:
        """Note that a read's entries may be pending for us unseen, or may become so until then.

        They are beyond what was read before, and among them is what is read or found meanwhile.
        """
        if not self._lost_beyond:
            self._lost_beyond = dict(self.last)
        self._lost_until = until
        self.pending = {name: self.pending.get(name, last) for name, last in self._lost_beyond.items()}

    def looks_for_pending(self, now: float) -> bool:
        """Whether pending entries are to be looked at before new ones are read."""
        if not self.pending:
            if not self._lost_beyond:
                self._given.clear()
            elif now >= self._lost_until:
                self.pending, self._lost_beyond = self._lost_beyond, {}
        return bool(self.pending)

    def looked(self, stream: str, last: str, entries: Sequence[Entry]) -> None:
        """Note what a page of pending entries gave, and where the next begins, if there is one."""
        self._given.update((entry.stream, entry.id) for entry in entries)
        if last:
            self.pending[stream] = last
        else:
            del self.pending[stream]

    def arrived(self, entries: list[Entry]) -> list[Entry]:
        """Note new entries."""
        for entry in entries:
            self.last[entry.stream] = entry.id
        if self._lost_beyond:
            self._given.update((entry.stream, entry.id) for entry in entries)
        return entries

    def is_new(self, entry: Entry) -> bool:
        """Whether a pending entry has not been given to the caller since a read was lost."""
        return (entry.stream, entry.id) not in self._given

    def begun_anew(self, stream: str) -> None:
        """Note that the group was created again, so that entries come again."""
        self.last[stream] = ""
        self._given.clear()
        if self._lost_beyond:
            self._lost_beyond[stream] = ""
