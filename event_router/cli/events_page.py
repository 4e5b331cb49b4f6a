"""`docs/events.md`: every event that the registered handlers take."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from event_router.cli.settings_page import GENERATED

if TYPE_CHECKING:
    from event_router.core.catalogue import Catalogue, EventInfo
    from event_router.settings import Settings


def events_page(catalogue: Catalogue, settings: Settings) -> str:
    """Return the page."""
    parts = [_head(settings)]
    for domain, events in catalogue.domains.items():
        streams = settings.streams(domain)
        named = f"`{streams[0]}`" + (f" to `{streams[-1]}`, by ordering key" if len(streams) > 1 else "")
        handlers = ", ".join(f"`{name}`" for name in dict.fromkeys(event.handler for event in events))
        parts.append(f"## {domain}\n\nStream {named}, handled by {handlers}.\n")
        parts += [_event(event) for event in events]
    return "\n".join(parts)


def _head(settings: Settings) -> str:
    from event_router.core.decoding import MAX_FIELDS
    from event_router.core.payloads import IDENTIFIER_BYTES, TEXT_BYTES

    return f"""# Events

{GENERATED}

An entry has flat fields, or one field `data` with a JSON object, or both; flat fields win. CloudEvents are
read too ([producers.md](producers.md#cloudevents)). Fields that are not named here are ignored. What does not
fit is a dead letter that names the field, and `event-router publish` refuses it before it is sent.

| field of every event | required | what it takes |
|---|---|---|
| `type` | yes | the event type, alone or as `domain:type`; an alias where one is named |
| `timestamp` | no | the event time: ISO 8601 (UTC where it has no zone) or epoch milliseconds, \
at most 24 hours after the entry was added; without it, the time in the entry's id |
| `id` | no | an identifier of the producer's own, by which a repetition is known |
| `traceparent` | no | the W3C trace context |

An identifier is text of 1 to {IDENTIFIER_BYTES} bytes of UTF-8 without control characters; an integer in
JSON becomes its decimals. Other text has at most {TEXT_BYTES:,} bytes. *JSON* is text, or any other JSON
value, which is kept as its JSON text. An entry has at most {MAX_FIELDS:,} fields and
{settings.max_entry_bytes:,} bytes (`EVENT_ROUTER_MAX_ENTRY_BYTES`).
"""


def _event(event: EventInfo) -> str:
    aliases = [name for name in event.names if name not in (event.type, f"{event.domain}:{event.type}")]
    also = f" Also written {', '.join(f'`{name}`' for name in aliases)}." if aliases else ""
    said = " ".join(filter(None, (event.meaning, event.summary))) + also
    lines = [f"### {event.domain} {event.type}", "", said.strip(), ""]
    if event.fields:
        lines += ["| field | required | what it takes | without it |", "|---|---|---|---|"]
        for field in event.fields:
            default = "" if field.default in (None, "") else f"`{json.dumps(field.default)}`"
            lines.append(
                f"| `{field.name}` | {'yes' if field.required else 'no'} | {field.type} | {default} |"
            )
        lines.append("")
    if event.example is not None:
        lines += ["```sh", command(event.domain, event.type, event.example), "```", ""]
    return "\n".join(line for line in lines)


def command(domain: str, event_type: str, payload: Mapping[str, Any]) -> str:
    """Return the `publish` command of an event."""
    fields = [f"{name}={_written(value)}" for name, value in payload.items()]
    return shlex.join(["event-router", "publish", domain, event_type, *fields])


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
