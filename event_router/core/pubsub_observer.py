"""What publishers and subscribers tell the world; metrics and logs are observers."""

from __future__ import annotations


class PubSubObserver:
    """Ignores everything. Subclasses override what they care about; no method may raise or await.

    `channel` is always a channel's template, `type` the text in the message.
    """

    def published(self, channel: str, type: str, receivers: int) -> None:
        """A message was published, and so many received it."""

    def received(self, channel: str, type: str) -> None:
        """A message was handed to a listener or to handlers."""

    def processed(self, channel: str, handler: str, seconds: float) -> None:
        """A handler ran to its end, whatever the outcome."""

    def handler_failed(self, channel: str, handler: str) -> None:
        """A handler raised or took too long."""

    def dropped(self, channel: str, count: int) -> None:
        """Messages reached nobody: given up, overflown, undecodable, or skipped when a handler failed."""

    def undecodable(self, channel: str) -> None:
        """A message could not be decoded (it is also dropped)."""

    def duplicate(self, channel: str) -> None:
        """A message came again and was left out."""

    def subscribed(self, channel: str, count: int) -> None:
        """So many channels and patterns of this template are subscribed now."""

    def outage_began(self, error: str) -> None:
        """The subscriber's connection was lost."""

    def outage_ended(self, seconds: float) -> None:
        """It stands again, with every subscription."""
