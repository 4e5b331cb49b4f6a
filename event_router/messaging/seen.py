"""What has come before, as far as a bounded memory goes."""

from __future__ import annotations

import hashlib

from event_router.messaging.buffer import Arrived


class Seen:
    """Remembers the latest messages, to tell which come again.

    A message comes again when it is the same byte for byte, `id` included, on the same subscription. The
    id alone would not do: two outboxes may give one id, and it is worse to lose a message than to get it
    twice.

    Args:
        size: messages it remembers, 16 bytes and a little each; 0 for none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._digests: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def is_repeated(self, arrived: Arrived) -> bool:
        """Return whether it came before, and remember it."""
        if not self._size:
            return False
        made = hashlib.blake2b(digest_size=16)
        for part in (repr(arrived.subscription), arrived.channel):
            made.update(part.encode("utf-8", "surrogateescape") + b"\0")
        made.update(arrived.payload)
        digest = made.digest()
        if digest in self._digests:
            return True
        self._digests[digest] = None
        if len(self._digests) > self._size:
            del self._digests[next(iter(self._digests))]
        return False
