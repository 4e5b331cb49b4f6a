"""An AsyncAPI 3.0 document of what goes in and out, from the same source as `docs/events.md`.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from event_router.core.catalogue import Catalogue, EventInfo
    from event_router.core.keys import KeyNames

Object = dict[str, Any]

_IDENTIFIER = {"type": "string", "minLength": 1, "maxLength": 512}
_ENTRY: Object = {
    "description": "What every event has beside its payload.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "The event type, alone or as domain:type."},
        "timestamp": {
            "description": "The event time, ISO 8601 or epoch milliseconds; without it, the entry's own.",
            "anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}],
        },
        "id": _IDENTIFIER | {"description": "The producer's own, by which a repetition is known."},
        "traceparent": {"type": "string", "description": "The W3C trace context."},
    },
    "required": ["type"],
}
_MESSAGE: Object = {
    "description": "What is published to live clients.",
    "type": "object",
    "properties": {
        "id": _IDENTIFIER | {"description": "The same in every repetition."},
        "timestamp": {"type": "string", "format": "date-time"},
        "type": {"type": "string"},
        "domain": {"type": "string"},
    },
    "required": ["id", "timestamp"],
}
_STEP: Object = {
    "description": "A step of a job.",
    "type": "object",
    "properties": {
        "job_id": _IDENTIFIER,
        "stage": {"type": "string"},
        "status": {"type": "string"},
        "progress": {"type": "number", "minimum": 0, "maximum": 100},
        "seq": {"type": "integer", "minimum": 0},
        "message": {"type": "string"},
        "result": {"type": "string"},
    },
    "required": ["job_id"],
}


def asyncapi_document(catalogue: Catalogue, names: KeyNames) -> Object:
    """Return the document: streams that the router reads, channels that it publishes on."""
    channels: Object = {}
    messages: Object = {}
    operations: Object = {}
    for domain, events in catalogue.domains.items():
        channels[domain] = _stream(domain, events, names)
        messages |= {_name(event): _message(event) for event in events}
        operations[f"receive-{domain}"] = _operation("receive", domain, [event.type for event in events])
    for name, (address, about, message) in _published(names).items():
        channels[name] = _channel(address, about, message)
        operations[f"publish-{name}"] = _operation("send", name, [message])
    published = {
        "message": _published_message("A message", "Message"),
        "step": _published_message("A step of a job", "Message", "Step"),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "event-router",
            "version": _version(),
            "description": "Events that the router takes from Redis Streams, and messages that it publishes.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "streams": _server("The Redis that holds the streams."),
            "pubsub": _server("The Redis that carries the fan-out; it may be the same."),
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages | published,
            "schemas": {"Entry": _ENTRY, "Message": _MESSAGE, "Step": _STEP} | _portable(catalogue.schemas),
        },
    }


def _server(description: str) -> Object:
    return {
        "host": "{host}:{port}",
        "protocol": "redis",
        "description": description,
        "variables": {"host": {"default": "localhost"}, "port": {"default": "6379"}},
    }


def _stream(domain: str, events: tuple[EventInfo, ...], names: KeyNames) -> Object:
    streams = names.streams(domain)
    channel: Object = {"address": streams[0]}
    if len(streams) > 1:
        template = names.stream_template
        sharded = template if "{shard}" in template else template + ":{shard}"
        shard = {"enum": [str(number) for number in range(len(streams))]}
        channel = {
            "address": sharded.replace("{domain}", domain),
            "parameters": {"shard": shard | {"description": "md5 of the ordering key, modulo the shards."}},
        }
    return channel | {
        "description": f"The stream of the domain {domain}. Fields are flat, or a JSON object in `data`.",
        "servers": [{"$ref": "#/servers/streams"}],
        "messages": {event.type: {"$ref": f"#/components/messages/{_name(event)}"} for event in events},
    }


def _published(names: KeyNames) -> dict[str, tuple[str, str, str]]:
    return {
        "job-steps": (names.job_channel_template, "The steps of one job.", "step"),
        "user": ("user:{user_id}", "What concerns one user.", "message"),
        "room": ("chat:{room_id}", "One room.", "message"),
        "events-of-type": ("events:{type}", "Events of one type.", "message"),
        "notifications": ("notifications", "Notifications of all users.", "message"),
        "presence": ("presence", "Users that come and go.", "message"),
        "updates": ("updates", "Live updates: data, configuration, status.", "message"),
    }


def _channel(address: str, about: str, message: str) -> Object:
    channel: Object = {
        "address": address,
        "description": f"{about} Redis Pub/Sub.",
        "servers": [{"$ref": "#/servers/pubsub"}],
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }
    if "{" in address:
        parameter = address.partition("{")[2].partition("}")[0]
        channel["parameters"] = {parameter: {"description": "Text of 1 to 512 bytes."}}
    return channel


def _operation(action: str, channel: str, messages: list[str]) -> Object:
    place = f"#/channels/{channel}"
    return {
        "action": action,
        "channel": {"$ref": place},
        "messages": [{"$ref": f"{place}/messages/{message}"} for message in messages],
    }


def _message(event: EventInfo) -> Object:
    about: Object = {
        "name": event.type,
        "title": f"{event.domain} {event.type}",
        "summary": event.summary or event.meaning or event.type,
        "payload": {
            "type": "object",
            "properties": {"type": {"enum": list(event.names)}},
            "allOf": [_schema("Entry"), _schema(event.schema_name)],
        },
    }
    if event.example is not None:
        about["examples"] = [{"payload": {"type": event.type, **event.example}}]
    return about


def _published_message(title: str, *schemas: str) -> Object:
    return {
        "name": title,
        "title": title,
        "payload": {"type": "object", "allOf": [_schema(name) for name in schemas]},
    }


def _schema(name: str) -> Object:
    return {"$ref": f"#/components/schemas/{name}"}


def _name(event: EventInfo) -> str:
    return f"{event.domain}.{event.type}"


def _portable(schemas: Mapping[str, Object]) -> Object:
    """Return schemas of which JSON fields take any value, since the router keeps what is no text as JSON."""
    return {name: _open(schema) for name, schema in schemas.items()}


def _open(node: Any) -> Any:
    if isinstance(node, list):
        return [_open(part) for part in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kind") == "JSON":
        return {"description": "Text, or any other JSON value, which is kept as its JSON text."}
    if node.get("x-kind") == "identifier":
        limits = {name: value for name, value in node.items() if name not in ("x-kind", "type", "default")}
        kept = {"default": node["default"]} if "default" in node else {}
        return {"anyOf": [{"type": "string", **limits}, {"type": "integer"}], **kept}
    return {name: _open(part) for name, part in node.items()}


def _version() -> str:
    try:
        return version("event-router")
    except PackageNotFoundError:
        return "unknown"
