"""The AsyncAPI document fits the specification's schema, and its payloads are what the router takes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from event_router.core.errors import InvalidEvent
from event_router.core.keys import KeyNames
from event_router.handler_loading import load_handlers
from event_router.settings import load
from tests.integration.cli_calls import call

HERE = Path(__file__).parent
DOCUMENT: dict[str, Any] = json.loads(
    (HERE.parents[1] / "docs" / "asyncapi.json").read_text(encoding="utf-8")
)
SPECIFICATION = jsonschema.Draft7Validator(
    json.loads((HERE / "asyncapi-3.0.0.schema.json").read_text(encoding="utf-8"))
)
REGISTRY = load_handlers(load())
MESSAGES = [(domain, event_type) for domain in REGISTRY.domains for event_type in REGISTRY.routes(domain)]
SAMPLES: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    5,
    6,
    101,
    1.5,
    2**70,
    "",
    "a",
    "7",
    "\x07",
    "é" * 600,
    {},
    [1],
    {"a": 1},
]
"""What a field may be in JSON."""


def payload(domain: str, event_type: str) -> jsonschema.Draft202012Validator:
    """What checks the payload of a message."""
    schema = DOCUMENT["components"]["messages"][f"{domain}.{event_type}"]["payload"]
    return jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def references(node: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for part in node.values():
            yield from references(part)
    elif isinstance(node, list):
        for part in node:
            yield from references(part)


def test_it_fits_the_specification() -> None:
    SPECIFICATION.validate(DOCUMENT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"asyncapi": "2.6.0"},
        {"channels": {"auth": {"adress": "events:auth"}}},
        {"operations": {"receive-auth": {"action": "take", "channel": {"$ref": "#/channels/auth"}}}},
        {"servers": {"streams": {"protocol": "redis"}}},
    ],
)
def test_what_does_not_fit_is_noticed(wrong: dict[str, Any]) -> None:
    assert list(SPECIFICATION.iter_errors(copy.deepcopy(DOCUMENT) | wrong))


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found, reference


def test_every_stream_and_every_type_is_there() -> None:
    names = KeyNames()
    for domain in REGISTRY.domains:
        channel = DOCUMENT["channels"][domain]
        assert channel["address"] == names.streams(domain)[0]
        assert set(channel["messages"]) == set(REGISTRY.routes(domain))
        assert DOCUMENT["operations"][f"receive-{domain}"]["action"] == "receive"
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert {"sse:events:{job_id}", "user:{user_id}", "notifications", "presence", "updates"} < addresses


@pytest.mark.parametrize(("domain", "event_type"), MESSAGES)
def test_examples_fit_and_lacking_fields_do_not(domain: str, event_type: str) -> None:
    checks = payload(domain, event_type)
    [example] = DOCUMENT["components"]["messages"][f"{domain}.{event_type}"]["examples"]
    checks.validate(example["payload"])
    for name in example["payload"]:
        lacking = {field: value for field, value in example["payload"].items() if field != name}
        assert not checks.is_valid(lacking), name
    assert not checks.is_valid(example["payload"] | {"type": "another"})


@pytest.mark.parametrize(("domain", "event_type"), MESSAGES)
def test_what_fits_is_taken_and_limits_agree(domain: str, event_type: str) -> None:
    checks = payload(domain, event_type)
    route = REGISTRY.routes(domain)[event_type]
    [example] = DOCUMENT["components"]["messages"][f"{domain}.{event_type}"]["examples"]
    fields = [field.encode_name for field in msgspec.structs.fields(route.payload.struct)]
    taken = 0
    for name in fields:
        for sample in SAMPLES:
            event = example["payload"] | {name: sample}
            if not checks.is_valid(event):
                continue
            taken += 1
            try:
                route.payload.convert({}, {key: value for key, value in event.items() if key != "type"})
            except InvalidEvent as error:
                pytest.fail(f"{name}={sample!r} fits the schema, and the router says: {error}")
    assert taken >= len(fields)


def test_shards_are_a_parameter() -> None:
    env = {"SHARDS": "chat=2", "STREAM_TEMPLATE": "{domain}:in"}
    document = json.loads(call("docs", "--format", "asyncapi", "-d", "-", env=env).out)
    SPECIFICATION.validate(document)
    chat = document["channels"]["chat"]
    assert (chat["address"], chat["parameters"]["shard"]["enum"]) == ("chat:in:{shard}", ["0", "1"])
    assert document["channels"]["auth"]["address"] == "auth:in"
