"""Entries become events, or get the precise reason why they never can."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router import (
    Event,
    EventHandler,
    Identifier,
    JsonText,
    Percent,
    Score,
    Sequence,
    StateTransaction,
    on,
)
from event_router.core.decoding import MAX_FIELDS, Decoder
from event_router.core.errors import InvalidEvent
from event_router.core.event import AnyEvent, Entry
from event_router.core.registry import HandlerRegistry

ENTRY_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
Fields = dict[str | bytes, str | bytes]


class Ride(msgspec.Struct):
    """One field of every kind."""

    bike_id: Identifier
    job_id: Identifier | None = None
    note: str | None = None
    stars: Score | None = None
    seq: Sequence = 0
    charge: Percent | None = None
    route: JsonText | None = None
    night: bool = False


class BikeHandler(EventHandler):
    domain = "bikes"

    @on("ridden", aliases=("bike:moved", "moved"))
    async def ridden(self, event: Event[Ride], state: StateTransaction) -> None:
        raise NotImplementedError


def decoder(**options: int) -> Decoder:
    registry = HandlerRegistry()
    registry.register(BikeHandler())
    return Decoder(registry, **options)


def entry(fields: Fields, entry_id: str = f"{ENTRY_MS}-3", deliveries: int = 1) -> Entry:
    flat = [part if isinstance(part, bytes) else part.encode() for pair in fields.items() for part in pair]
    return Entry("events:bikes", entry_id, flat, deliveries)


def decode(fields: Fields, **options: int) -> AnyEvent:
    return decoder(**options).decode("bikes", entry(fields))[1]


def ride(**fields: str | bytes) -> Fields:
    return {"type": "ridden", "bike_id": "b1", **fields}


def refusal(fields: Fields, **options: int) -> tuple[str, str]:
    with pytest.raises(InvalidEvent) as caught:
        decode(fields, **options)
    return caught.value.reason, str(caught.value)


class TestEvent:
    def test_flat_fields(self) -> None:
        event = decode(ride(stars="4", charge="30", seq="7", note="näher", night="true"))
        assert event.data == Ride(bike_id="b1", stars=4, charge=30, seq=7, note="näher", night=True)
        assert (event.id, event.stream, event.domain, event.type) == (
            f"{ENTRY_MS}-3",
            "events:bikes",
            "bikes",
            "ridden",
        )
        assert type(event.data.charge) is int

    def test_one_data_field(self) -> None:
        event = decode({"data": json.dumps({"type": "ridden", "bike_id": 7, "stars": 5, "charge": 1.5})})
        assert event.data == Ride(bike_id="7", stars=5, charge=1.5)

    def test_fields_beside_data_win(self) -> None:
        event = decode({"data": json.dumps({"type": "nonsense", "bike_id": "a", "seq": 1}), **ride(seq="2")})
        assert event.data == Ride(bike_id="b1", seq=2)

    def test_null_in_data_is_absent(self) -> None:
        event = decode({"data": json.dumps({"type": "ridden", "bike_id": "a", "note": None, "seq": None})})
        assert event.data == Ride(bike_id="a")

    def test_text_stays_as_it_is(self) -> None:
        event = decode(ride(note="null", job_id="007", route="true"))
        assert event.data == Ride(bike_id="b1", note="null", job_id="007", route="true")

    def test_json_text_keeps_any_other_value_as_json(self) -> None:
        event = decode({"data": json.dumps({"type": "ridden", "bike_id": "a", "route": {"via": [1, None]}})})
        assert event.data.route == '{"via":[1,null]}'

    @pytest.mark.parametrize("written", ["ridden", "bikes:ridden", "bike:moved", "moved"])
    def test_the_type_may_have_a_prefix_or_an_alias(self, written: str) -> None:
        assert decode(ride(type=written)).type == "ridden"

    def test_unknown_fields_are_ignored(self) -> None:
        assert decode(ride(colour="red")).data == Ride(bike_id="b1")

    def test_optional_fields_of_every_event(self) -> None:
        event = decode(ride(id="p-1", traceparent="00-abc-def-01"))
        assert (event.producer_id, event.traceparent) == ("p-1", "00-abc-def-01")
        event = decode(ride())
        assert (event.producer_id, event.traceparent) == (None, None)

    def test_a_traceparent_that_is_too_long_is_ignored(self) -> None:
        assert decode(ride(traceparent="x" * 513)).traceparent is None

    def test_the_attempt_is_the_delivery_count(self) -> None:
        assert decoder().decode("bikes", entry(ride(), deliveries=3))[1].attempt == 3

    def test_the_key_is_the_job_else_the_first_identifier(self) -> None:
        assert decode(ride()).key == "b1"
        assert decode(ride(job_id="j")).key == "j"


class TestTime:
    def test_without_a_timestamp_it_is_the_entry_s(self) -> None:
        event = decode(ride())
        assert event.time_ms == ENTRY_MS
        assert (event.timestamp, str(event.day)) == ("2026-01-01T00:00:00.000Z", "2026-01-01")

    @pytest.mark.parametrize(
        ("written", "shown"),
        [
            ("2025-12-31T23:59:59.999Z", "2025-12-31T23:59:59.999Z"),
            ("2025-12-31T23:59:59.9999Z", "2025-12-31T23:59:59.999Z"),
            ("2025-12-31T22:00:00", "2025-12-31T22:00:00.000Z"),
            ("2025-12-31 22:00:00+02:00", "2025-12-31T20:00:00.000Z"),
            ("2026-01-01T01:00:00+14:00", "2025-12-31T11:00:00.000Z"),
            ("20251231", "2025-12-31T00:00:00.000Z"),
            ("1764000000123", "2025-11-24T16:00:00.123Z"),
            ("0", "1970-01-01T00:00:00.000Z"),
            ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00.000Z"),
        ],
    )
    def test_a_timestamp_wins(self, written: str, shown: str) -> None:
        event = decode(ride(timestamp=written))
        assert event.timestamp == shown
        assert str(event.day) == shown[:10]

    def test_a_number_in_data(self) -> None:
        sent = {"type": "ridden", "bike_id": "a", "timestamp": 1764000000123}
        assert decode({"data": json.dumps(sent)}).time_ms == 1764000000123

    @pytest.mark.parametrize(
        "written",
        ["", "yesterday", "-1", "1e3", "2026-13-45T00:00:00Z", "2026-01-01T25:00Z", "2" * 17, "٢٠٢٦", "NaN"],
    )
    def test_what_is_no_time(self, written: str) -> None:
        reason, error = refusal(ride(timestamp=written))
        assert reason == "invalid"
        assert "field 'timestamp'" in error

    @pytest.mark.parametrize("written", [1.5, True, [1], {"at": 1}, 10**30, -1])
    def test_what_is_no_time_in_data(self, written: object) -> None:
        _, error = refusal({"data": json.dumps({"type": "ridden", "bike_id": "a", "timestamp": written})})
        assert "field 'timestamp'" in error

    @pytest.mark.parametrize(
        "written", ["2026-01-02T00:00:00.001Z", "2999-01-01T00:00:00Z", "253402300799999"]
    )
    def test_more_than_a_day_after_the_entry(self, written: str) -> None:
        assert refusal(ride(timestamp=written)) == (
            "invalid",
            "field 'timestamp' lies more than 24 hours after the entry was added",
        )


class TestRefusals:
    """The bad input of the contract: the reason, and what names the field."""

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            ({}, "field 'type' is missing"),
            ({"bike_id": "b"}, "field 'type' is missing"),
            ({"type": "", "bike_id": "b"}, "field 'type' must be text that is not empty"),
            ({"type": b"\xff", "bike_id": "b"}, "field 'type' is not UTF-8"),
            ({"type": "ridden"}, "field 'bike_id' is missing"),
            ({"type": "ridden", "bike_id": ""}, "field 'bike_id' is an empty identifier"),
            ({"type": "ridden", "bike_id": "x" * 513}, "of 513 bytes; at most 512"),
            ({"type": "ridden", "bike_id": "語" * 171}, "of 513 bytes; at most 512"),
            ({"type": "ridden", "bike_id": "a\nb"}, "field 'bike_id' has control characters: 'a\\nb'"),
            ({"type": "ridden", "bike_id": "nul\0"}, "control characters"),
            ({"type": "ridden", "bike_id": "\x1b[31m"}, "control characters"),
            ({"type": "ridden", "bike_id": "\x85"}, "control characters"),
            ({"type": "ridden", "bike_id": b"\xff\xfe"}, "field 'bike_id' is not UTF-8"),
            (ride(note=b"\xc3\x28"), "field 'note' is not UTF-8"),
            (ride(note="x" * 65_537), "field 'note' is a text of 65537 bytes; at most 65536"),
            (ride(note="ß" * 32_769), "field 'note' is a text of 65538 bytes"),
            (ride(stars="6"), "field 'stars': expected `int` <= 5"),
            (ride(stars="0"), "field 'stars': expected `int` >= 1"),
            (ride(stars="many"), "field 'stars': expected `int"),
            (ride(stars=""), "field 'stars' is empty"),
            (ride(stars="4.5"), "field 'stars': expected `int"),
            (ride(seq="-1"), "field 'seq': expected `int` >= 0"),
            (ride(seq="9223372036854775808"), "field 'seq': expected `int` <= 9223372036854775807"),
            (ride(seq="9" * 500), "field 'seq' is a number of 500 characters"),
            (ride(charge="101"), "field 'charge': expected `int` <= 100"),
            (ride(charge="100.1"), "field 'charge': expected `float` <= 100"),
            (ride(charge="nan"), "field 'charge' is not a finite number"),
            (ride(charge="-inf"), "field 'charge' is not a finite number"),
            (ride(charge="1e999"), "field 'charge'"),
            (ride(night="perhaps"), "field 'night': expected `bool`, got `str`"),
            (ride(id=""), "field 'id' is an empty identifier"),
            ({"data": ""}, "field 'data' is not JSON"),
            ({"data": '{"type": "ridden", "bike_id": '}, "field 'data' is not JSON"),
            ({"data": b'{"type": "\xff"}'}, "field 'data' is not JSON"),
            ({"data": '{"type": "ridden", "bike_id": "\\ud800"}'}, "field 'data' is not JSON"),
            ({"data": '["ridden"]'}, "field 'data' must be a JSON object"),
            ({"data": "null"}, "field 'data' must be a JSON object"),
            ({"data": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"}, "JSON nested too deeply"),
            ({"data": '{"a": ' + '{"a":' * 100_000}, "JSON nested too deeply"),
            ({"data": '{"type": ["ridden"], "bike_id": "a"}'}, "field 'type' must be text"),
            ({"data": '{"type": "ridden", "bike_id": 1.5}'}, "'bike_id' must be an identifier, not float"),
            ({"data": '{"type": "ridden", "bike_id": true}'}, "'bike_id' must be an identifier, not bool"),
            ({"data": '{"type": "ridden", "bike_id": ["a"]}'}, "'bike_id' must be an identifier, not list"),
            ({"data": '{"type": "ridden", "bike_id": null}'}, "field 'bike_id' is missing"),
            ({"data": '{"type": "ridden", "bike_id": "a", "stars": [5]}'}, "field 'stars'"),
            ({"data": '{"type": "ridden", "bike_id": "a", "stars": true}'}, "field 'stars'"),
            ({"data": '{"type": "ridden", "bike_id": "a", "note": {}}'}, "field 'note'"),
            ({"data": '{"type": "ridden", "bike_id": "a", "note": true}'}, "field 'note'"),
            ({"data": '{"type": "ridden", "bike_id": %s}' % ("9" * 513)}, "at most 512"),
        ],
        ids=lambda value: repr(value)[:60],
    )
    def test_invalid(self, fields: Fields, error: str) -> None:
        reason, said = refusal(fields)
        assert reason == "invalid"
        assert error in said
        assert len(said) < 200
        assert said.isprintable()

    @pytest.mark.parametrize(
        "written", ["no_such_type", "auth:ridden", "RIDDEN", "x\r\n\x1b[31m", "y" * 9999]
    )
    def test_unknown_type(self, written: str) -> None:
        reason, said = refusal(ride(type=written))
        assert reason == "unknown_type"
        assert "domain 'bikes'" in said
        assert len(said) < 200
        assert said.isprintable()

    def test_too_large(self) -> None:
        limit = sum(map(len, entry(ride(note="")).fields)) + 10
        assert decode(ride(note="x" * 10), max_entry_bytes=limit).type == "ridden"
        reason, said = refusal(ride(note="x" * 11), max_entry_bytes=limit)
        assert reason == "too_large"
        assert f"entry of {limit + 1} bytes" in said

    def test_too_many_fields(self) -> None:
        most: Fields = {f"f{n}": "" for n in range(MAX_FIELDS - 2)}
        assert decode({**most, **ride()}).type == "ridden"
        assert refusal({**most, **ride(), "more": ""})[0] == "too_large"

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(
                [b"type", b"data", b"timestamp", b"id", *(f.encode() for f in Ride.__struct_fields__)]
            ),
            st.binary(max_size=40)
            | st.text(max_size=20).map(str.encode)
            | st.sampled_from([b"ridden", b"1", b"-1", b"1e5", b"null", b"true", b"9" * 400])
            | st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["type", "bike_id", "stars", "seq", "timestamp"]), inner
                    )
                ),
                max_leaves=6,
            ).map(lambda value: json.dumps(value).encode()),
        )
    )
    def test_whatever_comes_it_is_an_event_or_refused(self, fields: dict[bytes, bytes]) -> None:
        unknown = Entry("events:bikes", f"{ENTRY_MS}-0", [part for pair in fields.items() for part in pair])
        label = decoder().label("bikes", unknown)
        assert label in ("ridden", "other")
        event, reason = None, ""
        try:
            event = decoder().decode("bikes", unknown)[1]
        except InvalidEvent as error:
            reason = error.reason
        if event is None:
            assert reason in ("invalid", "unknown_type", "too_large")
        else:
            assert event.type == label == "ridden"
            assert 0 < len(event.data.bike_id.encode()) <= 512


class TestLabel:
    @pytest.mark.parametrize(
        ("fields", "label"),
        [
            (ride(), "ridden"),
            (ride(type="moved"), "ridden"),
            ({"type": "ridden"}, "ridden"),
            ({"data": '{"type": "ridden"}'}, "ridden"),
            (ride(type="hostile\n{}"), "other"),
            ({"data": "{"}, "other"),
            ({}, "other"),
            ({"type": b"\xff"}, "other"),
        ],
    )
    def test_only_registered_types_are_labels(self, fields: Fields, label: str) -> None:
        assert decoder().label("bikes", entry(fields)) == label
