"""What events there are, told by the registered handlers: for documents that people and programs read."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from event_router.core.errors import InvalidEvent
from event_router.core.event import IDENTIFIER, JSON
from event_router.core.handler import Route
from event_router.core.payloads import IDENTIFIER_BYTES, TEXT_BYTES, kind_of
from event_router.core.registry import HandlerRegistry

REFERENCE = "#/components/schemas/{name}"
NO_CONTROL = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of a payload.

    Attributes:
        type: what it takes, in words.
        default: its value where it is left out; None for a required field, and where nothing stands for it.
        schema: its JSON Schema, with the limits that the router checks beyond the type.
    """

    name: str
    type: str
    required: bool
    default: object
    schema: Schema


@dataclass(frozen=True, slots=True)
class EventInfo:
    """One event type of one domain.

    Attributes:
        names: every name under which producers may write the type, its own first.
        summary: the first line of the handler method's docstring; empty without one.
        meaning: the first line of the payload's docstring.
        schema_name: its payload's name in the `schemas` of the catalogue.
        example: a payload with every required field; None where none could be made up.
    """

    domain: str
    type: str
    names: tuple[str, ...]
    handler: str
    summary: str
    meaning: str
    schema_name: str
    fields: tuple[FieldInfo, ...]
    example: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every event of the registered handlers.

    Attributes:
        domains: the events of each domain, in the order of registration.
        schemas: JSON Schemas (2020-12) of the payloads by name; they refer to one another by `REFERENCE`.
    """

    domains: Mapping[str, tuple[EventInfo, ...]]
    schemas: Mapping[str, Schema]

    @classmethod
    def of(cls, registry: HandlerRegistry) -> Catalogue:
        """Return the catalogue of the registered handlers."""
        routes = {domain: list(registry.routes(domain).values()) for domain in registry.domains}
        structs = list(dict.fromkeys(one.payload.struct for several in routes.values() for one in several))
        found, schemas = msgspec.json.schema_components(structs, ref_template=REFERENCE)
        names = {
            struct: schema["$ref"].rpartition("/")[2] for struct, schema in zip(structs, found, strict=True)
        }
        for struct, name in names.items():
            _limit(schemas[name], struct)
        domains = {
            domain: tuple(_event(route, names[route.payload.struct], schemas) for route in several)
            for domain, several in routes.items()
        }
        return cls(domains, schemas)


def words(schema: Schema) -> str:
    """Return what a JSON Schema takes, in a few words."""
    several = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    if several:
        found = list(dict.fromkeys(map(words, several)))
        return "number" + found[0].removeprefix("integer") if _is_number(several) else " or ".join(found)
    if "x-kind" in schema:
        return str(schema["x-kind"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        return "JSON object"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {words(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"by name: {words(values)}" if isinstance(values, dict) else "JSON object"
    return {"boolean": "`true` or `false`", "string": "text"}.get(str(kind), str(kind or "JSON")) + _range(
        schema
    )


def _is_number(parts: list[Schema]) -> bool:
    """Whether the parts are an integer and a number of one range, which is a number."""
    return {part.get("type") for part in parts} == {"integer", "number"} and len(set(map(_range, parts))) == 1


def _range(schema: Schema) -> str:
    if schema.get("type") not in ("integer", "number"):
        return ""
    least, most = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    below = schema.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    parts = (("above", above), ("at least", least), ("below", below), ("at most", most))
    limits = [f"{word} {limit}" for word, limit in parts if limit is not None]
    return f", {', '.join(limits)}" if limits else ""


def _limit(schema: Schema, struct: type[msgspec.Struct]) -> None:
    """Add to a payload's schema what the router checks of its texts."""
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        kind, plain = kind_of(hints[field.name])
        limits: Schema = {}
        if kind is IDENTIFIER:
            limits = {
                "x-kind": "identifier",
                "minLength": 1,
                "maxLength": IDENTIFIER_BYTES,
                "pattern": NO_CONTROL,
            }
        elif kind is JSON:
            limits = {"x-kind": "JSON", "maxLength": TEXT_BYTES}
        elif plain is str:
            limits = {"maxLength": TEXT_BYTES}
        found = schema["properties"][field.encode_name]
        for part in found.get("anyOf", [found]):
            if part.get("type") == "string" and "enum" not in part:
                part.update(limits)


def _event(route: Route, name: str, schemas: Mapping[str, Schema]) -> EventInfo:
    schema = schemas[name]
    required = set(schema.get("required", ()))
    fields = tuple(
        FieldInfo(field, words(about), field in required, about.get("default"), about)
        for field, about in schema["properties"].items()
    )
    return EventInfo(
        route.domain,
        route.type,
        tuple(dict.fromkeys(route.names)),
        route.handler,
        _first_line(route.call),
        _first_line(route.payload.struct),
        name,
        fields,
        _example(route, [field for field in fields if field.required]),
    )


def _example(route: Route, fields: list[FieldInfo]) -> Mapping[str, Any] | None:
    """Make up a payload and see that it is one."""
    made = {field.name: _value(field.name, field.schema) for field in fields}
    try:
        route.payload.convert({}, made)
    except InvalidEvent:
        return None
    return made


def _value(name: str, schema: Schema) -> Any:
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    if parts:
        return _value(name, parts[0])
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("x-kind") == "identifier":
        return f"{name.removesuffix('_id')}-7"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "boolean":
        return True
    return {"string": name, "array": [], "object": {}}.get(str(kind), name)


def _number(schema: Schema) -> float:
    """Return 1 where it is allowed, else a number of the range."""
    least, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
    most, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
    low, high = max(least, above), min(most, below)
    tried: list[float] = [1, low, high, low + 1, high - 1, (low + high) / 2]
    return next((one for one in tried if least <= one <= most and above < one < below), 1)


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]
