"""What an entry says, for people: its event as the router would decode it, and its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from event_router.cli.connecting import registry_of

if TYPE_CHECKING:
    from event_router.settings import Settings


def described(settings: Settings, stream: str, entry_id: str, flat: list[bytes]) -> dict[str, Any]:
    """Return an entry's type, time and key where it can be decoded, else what is wrong; and its fields."""
    from event_router.core.decoding import Decoder
    from event_router.core.errors import ConfigurationError, InvalidEvent
    from event_router.core.event import Entry
    from event_router.redis_io.dead_letter_format import text

    fields = [[text(name), text(value)] for name, value in zip(flat[::2], flat[1::2], strict=True)]
    found: dict[str, Any] = {"type": next((value for name, value in fields if name == "type"), None)}
    domain = settings.key_names.domain_of(stream)
    try:
        registry = registry_of(settings)
        if domain in registry.domains:
            decoder = Decoder(registry, max_entry_bytes=settings.max_entry_bytes)
            _, event = decoder.decode(str(domain), Entry(stream, entry_id, flat))
            found = {
                "type": f"{event.domain}:{event.type}",
                "event_time": event.timestamp,
                "key": event.key,
                "producer_id": event.producer_id,
            }
    except InvalidEvent as error:
        found["problem"] = f"{error.reason}: {error}"
    except ConfigurationError as error:
        found["problem"] = f"it cannot be decoded here: {error}"
    return found | {"fields": fields}
