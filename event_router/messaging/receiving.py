"""From what arrived to messages; what cannot be one is counted, and skipped or raised."""

from __future__ import annotations

from collections.abc import Callable

from event_router.core.channels import Channels
from event_router.core.errors import UndecodableMessage
from event_router.core.pubsub_observer import PubSubObserver
from event_router.messaging.buffer import Arrived
from event_router.messaging.messages import Message, MessageDecoder
from event_router.messaging.on_error import OnError
from event_router.messaging.rare_warnings import RareWarnings


class Receiving:
    """Decodes for listeners and handlers alike."""

    def __init__(
        self, channels: Channels, on_error: OnError, observer: PubSubObserver, monotonic: Callable[[], float]
    ) -> None:
        self.channels = channels
        self.on_error = on_error
        self.observer = observer
        self._warnings = RareWarnings(monotonic)

    def decoded(self, arrived: Arrived, decoder: MessageDecoder) -> Message | None:
        """Return the message, or None where it is none.

        Raises:
            UndecodableMessage: it is none, and `on_error` says `stop`.
        """
        try:
            return decoder.decode(arrived.channel, arrived.pattern, arrived.payload)
        except UndecodableMessage as error:
            label = self.channels.label(arrived.channel)
            self.observer.undecodable(label)
            self.observer.dropped(label, 1)
            if self.on_error.action("undecodable", error) == "stop":
                raise UndecodableMessage(f"channel {arrived.channel!r}: {error}") from error
            self._warnings.warn(f"an undecodable message of {label} is skipped: {error}")
            return None
