"""Does a value fit a schema: the part of JSON Schema (2020-12) that forms and choices need.

Checked are `type enum const`, `properties required additionalProperties minProperties maxProperties`,
`items prefixItems minItems maxItems uniqueItems`, `minLength maxLength`, `minimum maximum exclusiveMinimum
exclusiveMaximum multipleOf`, `allOf anyOf oneOf not`. `title description default examples format deprecated
readOnly writeOnly $schema $id $comment` say something to people only. Every other keyword is refused, so
that nobody relies on a constraint that is not checked: `pattern`, because a value can make a regular
expression run for ever, and `$ref`, because a schema could be endless.

Source: https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeGuard

import msgspec

from event_router.core.errors import InvalidSchema
from event_router.core.timestamps import shortened

MAX_DEPTH = 32
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "format", "deprecated", "readOnly", "writeOnly"}
    | {"$schema", "$id", "$comment"}
)
_TYPES: dict[str, Callable[[object], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and not (isinstance(value, float) and not value.is_integer()),
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("less than", lambda value, bound: value < bound),
    "maximum": ("more than", lambda value, bound: value > bound),
    "exclusiveMinimum": ("not more than", lambda value, bound: value <= bound),
    "exclusiveMaximum": ("not less than", lambda value, bound: value >= bound),
    "multipleOf": ("no multiple of", lambda value, bound: Fraction(str(value)) % Fraction(str(bound)) != 0),
}
_SIZES: dict[str, tuple[type, bool, str]] = {
    "minLength": (str, True, "characters"),
    "maxLength": (str, False, "characters"),
    "minItems": (list, True, "items"),
    "maxItems": (list, False, "items"),
    "minProperties": (dict, True, "members"),
    "maxProperties": (dict, False, "members"),
}
_SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = ("additionalProperties", "items", "not")


def check_schema(schema: object, place: str = "schema", depth: int = 0) -> None:
    """Accept a schema as JSON holds it.

    Raises:
        InvalidSchema: it has a keyword that is not known here, or a keyword has a value it cannot have; the
            message names the place.
    """
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise InvalidSchema(f"{place} must be an object, true or false, not {type(schema).__name__}")
    if depth > MAX_DEPTH:
        raise InvalidSchema(f"{place} is nested more than {MAX_DEPTH} deep")
    for keyword, given in schema.items():
        if keyword not in _ANNOTATIONS:
            _check_keyword(keyword, given, f"{place}.{keyword}", depth)


def _check_keyword(keyword: str, given: object, place: str, depth: int) -> None:
    expected = None
    if keyword in _SINGLE:
        check_schema(given, place, depth + 1)
    elif keyword in _SEVERAL:
        if isinstance(given, list) and given:
            for number, part in enumerate(given):
                check_schema(part, f"{place}[{number}]", depth + 1)
        else:
            expected = "a list of schemas that is not empty"
    elif keyword == "properties":
        if isinstance(given, dict):
            for name, part in given.items():
                check_schema(part, f"{place}.{name}", depth + 1)
        else:
            expected = "an object of schemas"
    elif keyword == "type":
        names = given if isinstance(given, list) else [given]
        if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
            expected = f"of {', '.join(_TYPES)}"
    elif keyword == "enum":
        expected = None if isinstance(given, list) else "a list"
    elif keyword == "required":
        texts = isinstance(given, list) and all(isinstance(name, str) for name in given)
        expected = None if texts else "a list of names"
    elif keyword == "uniqueItems":
        expected = None if isinstance(given, bool) else "true or false"
    elif keyword in _SIZES:
        whole = isinstance(given, int) and not isinstance(given, bool) and given >= 0
        expected = None if whole else "an integer of at least 0"
    elif keyword in _BOUNDS:
        usable = _is_number(given) and (keyword != "multipleOf" or given > 0)
        expected = None if usable else "a number" + (" above 0" if keyword == "multipleOf" else "")
    elif keyword != "const":
        raise InvalidSchema(
            f"{place} is a keyword that is not supported; leave it out, and check the value yourself"
        )
    if expected is not None:
        raise InvalidSchema(f"{place} must be {expected}, not {shortened(given)}")


def misfit(value: object, schema: Mapping[str, Any] | bool, place: str = "value") -> str | None:
    """Return why a JSON value does not fit a schema that `check_schema` accepted; None where it does."""
    if isinstance(schema, bool):
        return None if schema else f"{place} is not allowed"
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_TYPES[name](value) for name in names):
            return f"{place} must be of type {' or '.join(names)}, not {_type_of(value)}"
    if "const" in schema and _same(value) != _same(schema["const"]):
        return f"{place} must be {shortened(schema['const'])}"
    if "enum" in schema and _same(value) not in [_same(one) for one in schema["enum"]]:
        return f"{place} must be one of {shortened(schema['enum'], 200)}, not {shortened(value)}"
    problem = _combined(value, schema, place) or _measured(value, schema, place)
    if problem is None and isinstance(value, dict):
        problem = _members(value, schema, place)
    if problem is None and isinstance(value, list):
        problem = _items(value, schema, place)
    return problem


def _combined(value: object, schema: Mapping[str, Any], place: str) -> str | None:
    for part in schema.get("allOf", ()):
        if problem := misfit(value, part, place):
            return problem
    if "anyOf" in schema:
        problems = [misfit(value, part, place) for part in schema["anyOf"]]
        if None not in problems:
            return f"{place} fits none of the alternatives: {problems[0]}"
    if "oneOf" in schema:
        fitting = [misfit(value, part, place) for part in schema["oneOf"]].count(None)
        if fitting != 1:
            return f"{place} must fit one of the alternatives, and fits {fitting}"
    if "not" in schema and misfit(value, schema["not"], place) is None:
        return f"{place} is what it must not be"
    return None


def _measured(value: object, schema: Mapping[str, Any], place: str) -> str | None:
    if _is_number(value):
        for keyword, (wrong, outside) in _BOUNDS.items():
            if keyword in schema and outside(value, schema[keyword]):
                return f"{place} is {shortened(value)}, {wrong} {schema[keyword]}"
    for keyword, (kind, least, unit) in _SIZES.items():
        if keyword in schema and isinstance(value, kind):
            size, bound = len(value), schema[keyword]  # type: ignore[arg-type]  # str, list or dict
            if size < bound if least else size > bound:
                return f"{place} has {size} {unit}; {'at least' if least else 'at most'} {bound}"
    return None


def _members(value: dict[str, Any], schema: Mapping[str, Any], place: str) -> str | None:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{place} lacks {name!r}"
    properties = schema.get("properties", {})
    for name, member in value.items():
        part = properties[name] if name in properties else schema.get("additionalProperties", True)
        if problem := misfit(member, part, f"{place}.{shortened(name)[1:-1]}"):
            return problem
    return None


def _items(value: list[Any], schema: Mapping[str, Any], place: str) -> str | None:
    first = schema.get("prefixItems", ())
    for number, item in enumerate(value):
        part = first[number] if number < len(first) else schema.get("items", True)
        if problem := misfit(item, part, f"{place}[{number}]"):
            return problem
    if schema.get("uniqueItems") and len({_same(item) for item in value}) < len(value):
        return f"{place} has an item twice"
    return None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(value: object) -> bytes:
    """Return what is equal for equal values of JSON: 1 and 1.0 are, 1 and true are not."""
    return msgspec.json.encode(_levelled(value), order="deterministic")


def _levelled(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_levelled(item) for item in value]
    if isinstance(value, dict):
        return {name: _levelled(member) for name, member in value.items()}
    return value


def _type_of(value: object) -> str:
    return next((name for name, holds in _TYPES.items() if holds(value)), type(value).__name__)
