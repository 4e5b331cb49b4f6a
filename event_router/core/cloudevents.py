"""CloudEvents 1.0 in entries: read in both content modes, and written on request.

There is no binding for Redis Streams; an entry is laid out as the Kafka binding lays out a message, a
field for each header and the field `data` for the value:

- binary: the context attributes in `ce_…` fields, the payload in `data`, its media type in `content-type`;
- structured: the whole event as JSON in `data`, `content-type` is `application/cloudevents+json`. Read
  without a `content-type` too, and from a field `cloudevent`.

See https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, its JSON format, and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from event_router.core.errors import InvalidEvent
from event_router.core.json_object import json_object
from event_router.core.payloads import check_identifier
from event_router.core.timestamps import format_time, shortened

SPECVERSION = "1.0"
STRUCTURED_TYPE = "application/cloudevents+json"
JSON_TYPE = "application/json"

Mode = Literal["structured", "binary"]

_READ = ("specversion", "type", "source", "id", "time", "traceparent", "datacontenttype")
_BINARY = tuple((name, f"ce_{name}", f"ce_{name}".encode()) for name in _READ)
_ENVELOPES = (b"data", b"cloudevent")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """What an entry that is a CloudEvent says.

    Attributes:
        head: `type`, `id`, `source` and, where given, `timestamp` (the attribute `time`) and `traceparent`.
        data: the members of the payload.
        beside: the entry's other fields, except those that an attribute stands for; as in every entry
            they win over members of the payload.
    """

    head: dict[str, Any]
    data: dict[str, Any]
    beside: dict[bytes, bytes]


def is_marked(values: Mapping[bytes, bytes]) -> bool:
    """Whether the fields of an entry without a `type` say by themselves that it is a CloudEvent."""
    return b"ce_specversion" in values or b"cloudevent" in values


def read_marked(values: dict[bytes, bytes]) -> CloudEvent:
    """Return the CloudEvent in fields that are marked as one.

    Raises:
        InvalidEvent: it is none; names the attribute or field that is wrong.
    """
    if b"ce_specversion" not in values:
        return read_structured(values, json_object("cloudevent", values[b"cloudevent"]))
    attributes: dict[str, Any] = {}
    for name, field, raw_name in _BINARY:
        raw = values.get(raw_name)
        if raw is not None:
            try:
                attributes[name] = raw.decode()
            except UnicodeDecodeError:
                raise InvalidEvent(f"field {field!r} is not UTF-8") from None
    media_type = values.get(b"content-type")
    if media_type is not None:
        attributes.setdefault("datacontenttype", media_type.decode("utf-8", "replace"))
    head = _head(attributes)
    raw_data = values.get(b"data")
    _check_media_type(attributes)
    data = {} if raw_data is None else json_object("data", raw_data)
    return CloudEvent(head, data, _beside(values, head))


def read_structured(values: dict[bytes, bytes], members: dict[str, Any]) -> CloudEvent:
    """Return the CloudEvent whose JSON object has these members. Raises InvalidEvent as `read_marked`."""
    head = _head(members)
    data = members.get("data")
    if (encoded := members.get("data_base64")) is not None:
        if data is not None:
            raise InvalidEvent("the CloudEvent has both 'data' and 'data_base64'")
        data = _from_base64(encoded, members)
    elif data is not None:
        _check_media_type(members)
    if data is not None and not isinstance(data, dict):
        raise InvalidEvent("the CloudEvent's 'data' must be a JSON object")
    return CloudEvent(head, data or {}, _beside(values, head))


def written(mode: Mode, head: Mapping[str, str], time_ms: int | None, data: object) -> list[bytes]:
    """Return the fields of a CloudEvent, names and values in turn.

    Args:
        head: `id`, `source`, `type`, and `traceparent` where there is one.
        time_ms: the attribute `time`, in epoch milliseconds.
        data: the payload, anything msgspec encodes as a JSON object.
    """
    attributes = {"specversion": SPECVERSION, **head}
    if time_ms is not None:
        attributes["time"] = format_time(time_ms)
    if mode == "binary":
        flat = [part.encode() for name, text in attributes.items() for part in (f"ce_{name}", text)]
        return [*flat, b"content-type", JSON_TYPE.encode(), b"data", msgspec.json.encode(data)]
    event = {**attributes, "datacontenttype": JSON_TYPE, "data": data}
    return [
        b"content-type",
        f"{STRUCTURED_TYPE}; charset=UTF-8".encode(),
        b"data",
        msgspec.json.encode(event),
    ]


def _head(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the head of an event from its context attributes, the required ones checked."""
    for name in ("specversion", "id", "source", "type"):
        value = attributes.get(name)
        if value is None:
            raise InvalidEvent(f"CloudEvents attribute {name!r} is missing")
        if not isinstance(value, str) or not value:
            raise InvalidEvent(f"CloudEvents attribute {name!r} must be text that is not empty")
    if attributes["specversion"] != SPECVERSION:
        raise InvalidEvent(
            f"CloudEvents specversion {shortened(attributes['specversion'])} is not known; {SPECVERSION} is"
        )
    head = {name: attributes[name] for name in ("type", "id")}
    head["source"] = check_identifier("source", attributes["source"])
    if (time := attributes.get("time")) is not None:
        head["timestamp"] = _rfc_3339(time)
    if (trace := attributes.get("traceparent")) is not None:
        head["traceparent"] = trace
    return head


def _rfc_3339(value: object) -> str:
    text = value.upper() if isinstance(value, str) else ""
    if not _RFC_3339.fullmatch(text):
        raise InvalidEvent(f"CloudEvents attribute 'time' is no RFC 3339 time: {shortened(value)}")
    return text


def _check_media_type(attributes: Mapping[str, Any]) -> None:
    given = attributes.get("datacontenttype")
    if given is None:
        return
    media_type = given.partition(";")[0].strip().lower() if isinstance(given, str) else ""
    if not (media_type in (JSON_TYPE, "text/json") or media_type.endswith("+json")):
        raise InvalidEvent(f"CloudEvents attribute 'datacontenttype' is {shortened(given)}, not JSON")


def _from_base64(encoded: object, attributes: Mapping[str, Any]) -> dict[str, Any]:
    _check_media_type(attributes)
    try:
        raw = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None:
        raise InvalidEvent("the CloudEvent's 'data_base64' is not base64")
    return json_object("data_base64", raw)


def _beside(values: dict[bytes, bytes], head: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the fields beside the event, without those its attributes take the place of."""
    replaced = {*_ENVELOPES, *(name.encode() for name in head)}
    return {name: value for name, value in values.items() if name not in replaced}
