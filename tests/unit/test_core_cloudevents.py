"""CloudEvents 1.0 in entries: what the router makes of them, and of what only looks like one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from event_router.core.decoding import Decoder
from event_router.core.errors import InvalidEvent
from event_router.core.event import AnyEvent, Entry
from event_router.redis_io.dead_letter_format import Letter, parse_letter
from event_router.redis_io.entry_fields import decoded_fields
from tests.unit.test_core_decoding import ENTRY_MS, Fields, Ride, decoder, entry

ATTRIBUTES = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "/fleet/7",
    "type": "ridden",
    "time": "2025-12-31T17:31:00Z",
    "traceparent": "00-abc-def-01",
}
RIDE = {"bike_id": "b1", "stars": 4, "route": {"via": [1, None]}}


def structured(field: str = "data", **changes: Any) -> Fields:
    """The whole event in one field; what is None is left out."""
    event = {**ATTRIBUTES, "datacontenttype": "application/json", "data": RIDE, **changes}
    return {field: json.dumps({name: value for name, value in event.items() if value is not None})}


def binary(**changes: str | bytes | None) -> Fields:
    """Attributes in fields of their own; what is None is left out."""
    fields: dict[str, Any] = {f"ce_{name}": value for name, value in ATTRIBUTES.items()}
    fields |= {"content-type": "application/json; charset=utf-8", "data": json.dumps(RIDE)} | changes
    return {name: value for name, value in fields.items() if value is not None}


def decoded(fields: Fields, made: Decoder | None = None) -> AnyEvent:
    return (made or decoder()).decode("bikes", entry(fields))[1]


def refusal(fields: Fields) -> str:
    with pytest.raises(InvalidEvent) as caught:
        decoded(fields)
    assert caught.value.reason == "invalid"
    assert decoder().label("bikes", entry(fields)) in ("other", "ridden")
    return str(caught.value)


@pytest.mark.parametrize("fields", [structured(), structured("cloudevent"), binary()])
def test_is_an_event(fields: Fields) -> None:
    event = decoded(fields)
    assert event.data == Ride(bike_id="b1", stars=4, route='{"via":[1,null]}')
    assert (event.type, event.producer_id, event.source) == ("ridden", "A234-1234-1234", "/fleet/7")
    assert (event.timestamp, event.traceparent) == ("2025-12-31T17:31:00.000Z", "00-abc-def-01")
    assert decoder().label("bikes", entry(fields)) == "ridden"


@pytest.mark.parametrize("written", ["bikes:ridden", "moved", "bike:moved"])
def test_the_type_may_have_a_prefix_or_an_alias(written: str) -> None:
    assert decoded(structured(type=written)).type == decoded(binary(ce_type=written)).type == "ridden"


def test_without_a_time_it_is_the_entry_s() -> None:
    assert decoded(structured(time=None)).time_ms == decoded(binary(ce_time=None)).time_ms == ENTRY_MS


@pytest.mark.parametrize(
    "written",
    ["2025-12-31T17:31:00.123456789Z", "2025-12-31t18:31:00.123z", "2025-12-31T19:31:00.1235+02:00"],
)
def test_times_of_rfc_3339(written: str) -> None:
    assert decoded(binary(ce_time=written)).timestamp[:14] in ("2025-12-31T17:", "2025-12-31T18:")
    assert decoded(structured(time=written)).timestamp.endswith("31:00.123Z")


def test_a_timestamp_that_a_replay_adds_stands_where_there_is_no_time() -> None:
    later = {"timestamp": "1764000000123"}
    assert decoded({**binary(ce_time=None), **later}).time_ms == 1764000000123
    assert decoded({**structured(time=None), **later}).time_ms == 1764000000123
    assert decoded({**structured(), **later}).timestamp == "2025-12-31T17:31:00.000Z"


def test_fields_beside_it_win_over_its_payload_but_not_over_its_attributes() -> None:
    for fields in (structured(), binary()):
        event = decoded({**fields, "stars": "1", "id": "other", "traceparent": "other"})
        assert (event.data.stars, event.producer_id, event.traceparent) == (
            1,
            "A234-1234-1234",
            "00-abc-def-01",
        )


def test_payload_members_are_no_attributes() -> None:
    data = {"bike_id": "b1", "id": "inner", "timestamp": "never", "type": "nonsense", "traceparent": "inner"}
    for fields in (
        structured(data=data, time=None, traceparent=None),
        binary(data=json.dumps(data), ce_time=None, ce_traceparent=None),
    ):
        event = decoded(fields)
        assert (event.type, event.producer_id, event.traceparent) == ("ridden", "A234-1234-1234", None)
        assert event.time_ms == ENTRY_MS


def test_an_entry_with_a_type_of_its_own_is_none() -> None:
    event = decoded({"type": "ridden", "bike_id": "b", **binary(data=None)})
    assert (event.producer_id, event.source, event.data) == (None, None, Ride(bike_id="b"))
    plain = {"type": "ridden", "cloudevent": "{", "ce_specversion": "0"}
    assert decoded_fields(entry({**plain}).fields) == plain
    plain["data"] = json.dumps({**ATTRIBUTES, "data": RIDE})
    assert decoded_fields(entry({**plain}).fields)["data"] == RIDE


def test_binary_data_in_base64() -> None:
    encoded = base64.b64encode(json.dumps(RIDE).encode()).decode()
    assert decoded(structured(data=None, data_base64=encoded)).data.stars == 4


def test_ids_of_two_sources_are_two() -> None:
    one, two = decoded(structured()), decoded(structured(source="/fleet/8"))
    assert one.unique_id != two.unique_id
    assert one.unique_id == decoded(binary()).unique_id
    assert decoded({"type": "ridden", "bike_id": "b", "id": "x"}).unique_id == "x"
    assert decoded({"type": "ridden", "bike_id": "b"}).unique_id is None


@pytest.mark.parametrize("name", ["id", "source", "type"])
def test_required_attributes(name: str) -> None:
    missing = f"CloudEvents attribute {name!r} is missing"
    assert refusal(structured(**{name: None})) == refusal(binary(**{f"ce_{name}": None})) == missing
    empty = f"CloudEvents attribute {name!r} must be text that is not empty"
    assert refusal(structured(**{name: ""})) == refusal(binary(**{f"ce_{name}": ""})) == empty
    assert refusal(structured(**{name: 7})) == empty


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (binary(ce_specversion=None), "CloudEvents attribute 'specversion' is missing"),
        (binary(ce_specversion="0.3"), "CloudEvents specversion '0.3' is not known; 1.0 is"),
        (structured(specversion="2.0"), "CloudEvents specversion '2.0' is not known; 1.0 is"),
        (structured(specversion=1.0), "CloudEvents attribute 'specversion' must be text"),
        (binary(ce_source=b"\xff"), "field 'ce_source' is not UTF-8"),
        (binary(ce_source="a\nb"), "field 'source' has control characters"),
        (binary(ce_source="x" * 513), "field 'source' is an identifier of 513 bytes; at most 512"),
        (binary(ce_id="x" * 513), "field 'id' is an identifier of 513 bytes; at most 512"),
        (binary(ce_time="yesterday"), "CloudEvents attribute 'time' is no RFC 3339 time: 'yesterday'"),
        (binary(ce_time="1764000000123"), "CloudEvents attribute 'time' is no RFC 3339 time"),
        (binary(ce_time="2025-12-31T17:31:00"), "CloudEvents attribute 'time' is no RFC 3339 time"),
        (binary(ce_time="2025-13-31T17:31:00Z"), "CloudEvents attribute 'time'"),
        (structured(time=5), "CloudEvents attribute 'time' is no RFC 3339 time: 5"),
        (
            structured(time="2999-01-01T00:00:00Z"),
            "CloudEvents attribute 'time' lies more than 24 hours after",
        ),
        (binary(**{"content-type": "text/xml"}), "attribute 'datacontenttype' is 'text/xml', not JSON"),
        (binary(ce_datacontenttype="text/xml"), "attribute 'datacontenttype' is 'text/xml', not JSON"),
        (structured(datacontenttype="text/plain"), "attribute 'datacontenttype' is 'text/plain', not JSON"),
        (structured(datacontenttype=5), "attribute 'datacontenttype' is 5, not JSON"),
        (binary(data="<a/>"), "field 'data' is not JSON"),
        (binary(data="[1]"), "field 'data' must be a JSON object"),
        (structured(data="text"), "the CloudEvent's 'data' must be a JSON object"),
        (structured(data_base64="e30="), "the CloudEvent has both 'data' and 'data_base64'"),
        (structured(data=None, data_base64="%%"), "the CloudEvent's 'data_base64' is not base64"),
        (structured(data=None, data_base64="bm8="), "field 'data_base64' is not JSON"),
        (structured(data=None), "field 'bike_id' is missing"),
        (binary(data=None), "field 'bike_id' is missing"),
        ({"cloudevent": "{"}, "field 'cloudevent' is not JSON"),
        ({"cloudevent": "[]"}, "field 'cloudevent' must be a JSON object"),
        ({"cloudevent": "{}"}, "CloudEvents attribute 'specversion' is missing"),
        ({"data": json.dumps([{**ATTRIBUTES}])}, "field 'data' must be a JSON object"),
    ],
)
def test_what_is_wrong_is_named(fields: Fields, error: str) -> None:
    assert error in refusal(fields)


def test_an_unknown_type_is_said_to_be_one() -> None:
    with pytest.raises(InvalidEvent) as caught:
        decoded(structured(type="com.example.ridden"))
    assert caught.value.reason == "unknown_type"


def test_services_that_only_read_get_the_same_fields_whatever_the_form() -> None:
    expected = {
        "type": "ridden",
        "id": "A234-1234-1234",
        "source": "/fleet/7",
        "timestamp": "2025-12-31T17:31:00Z",
        "traceparent": "00-abc-def-01",
        **RIDE,
    }
    for fields in (structured(), structured("cloudevent"), binary()):
        found = decoded_fields(entry(fields).fields)
        assert {name: found[name] for name in expected} == expected


def test_services_that_only_read_get_a_broken_one_as_it_came() -> None:
    fields = {"cloudevent": "{", "note": "x"}
    assert decoded_fields(entry(fields).fields) == fields
    broken = binary(ce_source=None)
    assert decoded_fields(Entry("s", "1-1", entry(broken).fields).fields)["ce_id"] == "A234-1234-1234"


def letter(fields: Fields) -> Letter:
    own = {"dlq_stream": "events:bikes", "dlq_id": "1767225600123-4", "dlq_reason": "invalid"}
    return parse_letter("dlq:events:bikes", "1-1", entry({**fields, **own}).fields)


def test_dead_letters_know_their_type_and_their_time() -> None:
    for fields in (structured(), structured("cloudevent"), binary()):
        assert (letter(fields).type, letter(fields).missing_timestamp) == ("ridden", None)
    inner = {**RIDE, "timestamp": 1}
    for fields in (structured(time=None, data=inner), binary(ce_time=None, data=json.dumps(inner))):
        assert letter(fields).missing_timestamp == "1767225600123"
    assert letter(binary(ce_source=None)).type == "ridden"
    assert letter({"cloudevent": "{"}).type is None
