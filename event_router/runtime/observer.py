"""What the runtime tells the world; metrics and logs are observers, so that it knows neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from event_router.core.pause import Pause
    from event_router.runtime.delivery import Delivery


class Observer:
    """Ignores everything. Subclasses override what they care about; no method may raise or await."""

    def joined(self, streams: Sequence[str]) -> None:
        """The router is part of the group on its streams and begins to read."""

    def handled(self, delivery: Delivery, seconds: float) -> None:
        """A handler ran to its end, whatever the outcome."""

    def failed(self, delivery: Delivery, error: str, retry_in_s: float | None) -> None:
        """An attempt failed; None means no further attempt is made."""

    def retried(self, delivery: Delivery) -> None:
        """A further attempt begins."""

    def committed(self, batch: Sequence[Delivery], seconds: float) -> None:
        """The commit of these entries is confirmed: their effects are applied."""

    def duplicate(self, delivery: Delivery) -> None:
        """Somebody had settled the entry before: nothing was applied."""

    def conflict(self, delivery: Delivery) -> None:
        """Somebody changed what the handler read: it runs again."""

    def dead_lettered(self, delivery: Delivery, reason: str, error: str) -> None:
        """The entry's dead letter is written."""

    def unknown_acknowledged(self, delivery: Delivery, error: str) -> None:
        """An entry nobody handles was settled without effects, as the settings say."""

    def claimed(self, stream: str, count: int) -> None:
        """Entries were taken over from a consumer that went away."""

    def trimmed(self, stream: str, ids: Sequence[str]) -> None:
        """Pending entries no longer stand in their stream."""

    def unread_trimmed(self, stream: str, count: int) -> None:
        """Entries were trimmed before anybody read them."""

    def outage_began(self, role: str, error: str) -> None:
        """Redis does not answer, or refuses or denies something that is waited for."""

    def outage_ended(self, seconds: float) -> None:
        """Redis answers again, and everything."""

    def unreachable(self, error: str) -> None:
        """Redis does not answer, or refuses: not for want of a permission only."""

    def reachable_again(self) -> None:
        """Redis answers, if only by denying something."""

    def breaker_opened(self, domain: str, error: str) -> None:
        """A domain's handlers fail for want of something: its reading pauses."""

    def breaker_closed(self, domain: str, seconds: float) -> None:
        """A probe succeeded: reading goes on."""

    def group_created(self, stream: str, start: str, at_most: int, known: bool) -> None:
        """A group was missing and was created; `at_most` entries were lost or may count twice."""

    def consumers_removed(self, stream: str, names: Sequence[str]) -> None:
        """Dead consumers without pending entries were removed."""

    def retained(self, stream: str, trimmed: int) -> None:
        """Settled entries were trimmed."""

    def paused(self, pause: Pause) -> None:
        """An operator paused a stream, or changed its pause."""

    def resumed(self, stream: str) -> None:
        """A stream that was paused is read again."""

    def refused(self, what: str, error: str) -> None:
        """Redis refused something that trying again will not mend; somebody must look."""

    def stream_refused(self, stream: str, error: str) -> None:
        """Redis begins to refuse something on a stream, such as one whose key is of another type."""

    def stream_accepted(self, stream: str) -> None:
        """Redis refuses nothing on the stream any more."""


class Observers(Observer):
    """Passes everything on to several observers, which may be such as well."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        for name in [name for name in vars(Observer) if not name.startswith("_")]:
            targets = [
                getattr(observer, name)
                for observer in observers
                if name in vars(observer) or getattr(type(observer), name) is not getattr(Observer, name)
            ]
            setattr(self, name, _fan_out(targets))


def _fan_out(targets: Sequence[object]) -> object:
    if len(targets) == 1:
        return targets[0]

    def call(*args: object) -> None:
        for target in targets:
            target(*args)  # type: ignore[operator]  # bound methods of observers

    return call
