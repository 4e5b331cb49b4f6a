"""What of JSON Schema is checked, and that the rest is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router.core.errors import InvalidSchema, ValueMisfit
from event_router.core.input_request import encoded_value, interpreted, parse_schema
from event_router.core.json_schema import check_schema, misfit

FITS: list[tuple[Any, list[Any], list[Any]]] = [
    (True, [None, 1, "a"], []),
    (False, [], [None, 1]),
    ({}, [None, [], {}], []),
    ({"type": "null"}, [None], [0, "", False]),
    ({"type": "boolean"}, [True, False], [0, 1, "true"]),
    ({"type": "integer"}, [0, -5, 1.0, 2**70], [1.5, True, "1"]),
    ({"type": "number"}, [0, 1.5], [True, "1", None]),
    ({"type": "string"}, ["", "a"], [1, None]),
    ({"type": ["string", "null"]}, ["a", None], [1]),
    ({"type": "array"}, [[]], [{}, "a"]),
    ({"type": "object"}, [{}], [[], "a"]),
    ({"const": 1}, [1, 1.0], [True, "1"]),
    ({"const": {"a": [1]}}, [{"a": [1.0]}], [{"a": [2]}, {"a": [True]}]),
    ({"enum": ["yes", 1, None]}, ["yes", 1, None], ["no", True, 0]),
    ({"minimum": 1, "maximum": 3}, [1, 3, 2.5, "text"], [0, 3.01]),
    ({"exclusiveMinimum": 1, "exclusiveMaximum": 3}, [2], [1, 3]),
    ({"multipleOf": 0.1}, [0.3, 1, 7.7], [0.35]),
    ({"multipleOf": 5}, [10, 0, -5], [11]),
    ({"minLength": 2, "maxLength": 3}, ["ab", "äöü", 1], ["a", "abcd"]),
    ({"minItems": 1, "maxItems": 2}, [[1], [1, 2], "a"], [[], [1, 2, 3]]),
    ({"uniqueItems": True}, [[1, True, "1"], [[1], [2]]], [[1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]]),
    ({"items": {"type": "integer"}}, [[], [1]], [["a"], [1, "a"]]),
    ({"prefixItems": [{"type": "string"}], "items": False}, [[], ["a"]], [[1], ["a", 1]]),
    ({"required": ["a"]}, [{"a": None}, [1]], [{}]),
    ({"properties": {"a": {"type": "string"}}}, [{}, {"a": "x"}, {"b": 1}], [{"a": 1}]),
    ({"properties": {"a": True}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
    ({"additionalProperties": {"type": "string"}}, [{"x": "y"}], [{"x": 1}]),
    ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
    ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, [2], [0, 4]),
    ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["a", 7], [3]),
    ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, [3, 5.5], [7, 3.5]),
    ({"not": {"type": "string"}}, [1], ["a"]),
    ({"title": "t", "description": "d", "default": 1, "examples": [2], "format": "date"}, ["any"], []),
]


@pytest.mark.parametrize(("schema", "good", "bad"), FITS)
def test_values_fit_or_do_not(schema: Any, good: list[Any], bad: list[Any]) -> None:
    check_schema(schema)
    assert [misfit(value, schema) for value in good] == [None] * len(good)
    assert all(misfit(value, schema) for value in bad)


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        (
            {"properties": {"a": {"items": {"type": "string"}}}},
            {"a": ["x", 1]},
            "value.a[1] must be of type string",
        ),
        ({"required": ["size"]}, {}, "value lacks 'size'"),
        ({"maxLength": 2}, "abc", "value has 3 characters; at most 2"),
        ({"minimum": 3}, 2, "value is 2, less than 3"),
    ],
)
def test_a_misfit_says_where_and_why(schema: Any, value: Any, problem: str) -> None:
    assert str(misfit(value, schema)).startswith(problem)


def _nested(depth: int) -> Any:
    schema: Any = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ("text", "schema must be an object"),
        ([], "schema must be an object"),
        ({"type": "text"}, "schema.type must be of null, boolean"),
        ({"type": []}, "schema.type must be"),
        ({"enum": "yes"}, "schema.enum must be a list"),
        ({"properties": {"a": {"minimum": "1"}}}, "schema.properties.a.minimum must be a number"),
        ({"properties": []}, "schema.properties must be an object of schemas"),
        ({"required": "a"}, "schema.required must be a list of names"),
        ({"maxLength": -1}, "schema.maxLength must be an integer"),
        ({"maxLength": True}, "schema.maxLength must be an integer"),
        ({"multipleOf": 0}, "schema.multipleOf must be a number above 0"),
        ({"uniqueItems": 1}, "schema.uniqueItems must be true or false"),
        ({"anyOf": []}, "schema.anyOf must be a list of schemas"),
        ({"allOf": [{"pattern": "a"}]}, "schema.allOf[0].pattern is a keyword that is not supported"),
        ({"$ref": "#"}, "schema.$ref is a keyword that is not supported"),
        ({"patternProperties": {}}, "schema.patternProperties is a keyword that is not supported"),
        (_nested(40), "is nested more than 32 deep"),
    ],
)
def test_what_would_not_be_checked_is_refused(schema: Any, problem: str) -> None:
    with pytest.raises(InvalidSchema) as refused:
        check_schema(schema)
    assert problem in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"type": NaN}', "1"])
def test_a_text_that_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchema):
        parse_schema(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    VALUES,
    st.sampled_from([True, {"type": "string"}, {"type": ["string", "integer"]}, {"not": {"type": "string"}}]),
)
def test_a_value_that_fits_comes_out_of_its_text_again(value: Any, schema: Any) -> None:
    try:
        text = encoded_value(value, schema)
    except ValueMisfit:
        assert misfit(value, schema) is not None
    else:
        assert msgspec.json.encode(interpreted(text, schema)) == msgspec.json.encode(value)


def test_a_hostile_text_is_only_a_text() -> None:
    deep = "[" * 100_000
    assert interpreted(deep, True) == deep
    with pytest.raises(ValueMisfit):
        interpreted(deep, {"type": "array"})
