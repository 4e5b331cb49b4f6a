"""What a producer sends becomes an entry that the router takes, or is refused before it is sent."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router.core.decoding import MAX_FIELDS
from event_router.core.encoding import Encoder, members_of, registry_of
from event_router.core.errors import ConfigurationError, InvalidEvent
from event_router.core.event import Entry
from event_router.core.keys import KeyNames
from event_router.messaging.preparing import Preparer
from tests.unit.test_core_decoding import ENTRY_MS, BikeHandler, Ride, decoder

FORMS = ("fields", "structured", "binary")
RIDE = {"type": "ridden", "bike_id": "b1"}


def encoder(form: str = "fields", handlers: bool = True, **options: Any) -> Encoder:
    registry = registry_of([BikeHandler()]) if handlers else None
    return Encoder(registry, form=form, source="/fleet/7", **options)  # type: ignore[arg-type]


def fields_of(event: Any, form: str = "fields", *, domain: str = "bikes", **options: Any) -> dict[str, str]:
    flat, _ = encoder(form, **options).encode(domain, members_of(event), now_ms=ENTRY_MS)
    text = [part.decode() for part in flat]
    return dict(zip(text[::2], text[1::2], strict=True))


def refusal(event: Any, form: str = "fields", *, domain: str = "bikes", **options: Any) -> tuple[str, str]:
    with pytest.raises(InvalidEvent) as caught:
        fields_of(event, form, domain=domain, **options)
    return caught.value.reason, str(caught.value)


class TestForms:
    def test_a_field_for_each_member(self) -> None:
        event = {**RIDE, "stars": 4, "charge": 1.5, "night": True, "note": None, "route": {"via": [1, "ü"]}}
        assert fields_of(event) == {
            "type": "ridden",
            "bike_id": "b1",
            "stars": "4",
            "charge": "1.5",
            "night": "true",
            "route": '{"via":[1,"ü"]}',
        }

    def test_times_and_numbers_as_the_router_reads_them(self) -> None:
        moment = datetime(2025, 12, 31, 23, 0, tzinfo=UTC)
        event = {**RIDE, "timestamp": moment, "note": date(2026, 1, 2), "job_id": Decimal("7.0")}
        sent = {"timestamp": "2025-12-31T23:00:00Z", "note": "2026-01-02", "job_id": "7.0"}
        assert fields_of(event) == {**RIDE, **sent}

    def test_milliseconds_of_eight_digits_are_no_date(self) -> None:
        for form in FORMS:
            _, event = encoder(form).encode("bikes", {**RIDE, "timestamp": 20240115}, now_ms=ENTRY_MS)
            assert event.time_ms == 20240115

    def test_a_cloud_event_in_fields(self) -> None:
        event = {**RIDE, "stars": 4, "id": "p-1", "timestamp": 1764000000123, "traceparent": "00-a"}
        fields = fields_of(event, "binary")
        assert json.loads(fields.pop("data")) == {"bike_id": "b1", "stars": 4}
        assert fields == {
            "ce_specversion": "1.0",
            "ce_id": "p-1",
            "ce_source": "/fleet/7",
            "ce_type": "ridden",
            "ce_time": "2025-11-24T16:00:00.123Z",
            "ce_traceparent": "00-a",
            "content-type": "application/json",
        }

    def test_a_cloud_event_as_a_whole(self) -> None:
        fields = fields_of({**RIDE, "data": '{"stars": 4}'}, "structured", new_id=lambda: "made")
        assert fields.pop("content-type") == "application/cloudevents+json; charset=UTF-8"
        assert json.loads(fields.pop("data")) == {
            "specversion": "1.0",
            "id": "made",
            "source": "/fleet/7",
            "type": "ridden",
            "datacontenttype": "application/json",
            "data": {"bike_id": "b1", "stars": 4},
        }
        assert fields == {}

    def test_a_struct_with_its_tag(self) -> None:
        class Ridden(msgspec.Struct, tag_field="type", tag="ridden", omit_defaults=True):
            bike_id: str
            stars: int | None = None

        assert fields_of(Ridden("b1")) == RIDE

    @pytest.mark.parametrize("form", ["structured", "binary"])
    def test_cloud_events_need_a_source(self, form: str) -> None:
        with pytest.raises(ConfigurationError, match="source"):
            Encoder(form=form)  # type: ignore[arg-type]

    def test_there_are_no_other_forms(self) -> None:
        with pytest.raises(ConfigurationError, match="'batched'"):
            Encoder(form="batched")  # type: ignore[arg-type]


identifiers = st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable())
rides = st.fixed_dictionaries(
    {"type": st.sampled_from(["ridden", "bikes:ridden", "moved"]), "bike_id": identifiers},
    optional={
        "job_id": identifiers | st.integers(0, 10**30),
        "note": st.text(st.characters(codec="utf-8"), max_size=50),
        "stars": st.integers(1, 5),
        "seq": st.integers(0, 2**63 - 1),
        "charge": st.integers(0, 100) | st.floats(0, 100),
        "night": st.booleans(),
        "route": st.lists(st.integers()) | st.dictionaries(st.text(st.characters(codec="utf-8")), st.none()),
        "id": identifiers,
        "timestamp": st.integers(0, ENTRY_MS + 86_400_000)
        | st.datetimes(datetime(1970, 1, 1), datetime(2026, 1, 1)),  # noqa: DTZ001 - naive means UTC
        "traceparent": identifiers,
        "colour": st.none() | st.text(st.characters(codec="utf-8")),
    },
)


@settings(deadline=None, max_examples=150)
@given(rides)
def test_what_is_encoded_is_decoded_whatever_the_form(event: dict[str, Any]) -> None:
    seen = []
    for form in FORMS:
        fields, _ = encoder(form, new_id=lambda: "made").encode("bikes", event, now_ms=ENTRY_MS)
        _, decoded = decoder().decode("bikes", Entry("events:bikes", f"{ENTRY_MS}-1", fields))
        assert decoded.producer_id == event.get("id", None if form == "fields" else "made")
        seen.append((decoded.type, decoded.data, decoded.key, decoded.time_ms, decoded.traceparent))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1] == Ride(
        bike_id=event["bike_id"],
        job_id=str(event["job_id"]) if "job_id" in event else None,
        note=event.get("note"),
        stars=event.get("stars"),
        seq=event.get("seq", 0),
        charge=event.get("charge"),
        route=msgspec.json.encode(event["route"]).decode() if "route" in event else None,
        night=event.get("night", False),
    )


class TestRefusals:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("handlers", [True, False])
    @pytest.mark.parametrize(
        ("event", "named"),
        [
            ({"bike_id": "b"}, "field 'type' is missing"),
            ({**RIDE, "type": ""}, "'type'"),
            ({**RIDE, "id": ""}, "field 'id' is an empty identifier"),
            ({**RIDE, "id": "a\n"}, "field 'id' has control characters"),
            ({**RIDE, "id": "x" * 513}, "field 'id' is an identifier of 513 bytes"),
            ({**RIDE, "timestamp": "yesterday"}, "field 'timestamp'"),
            ({**RIDE, "timestamp": ENTRY_MS + 86_400_001}, "more than 24 hours after"),
            ({**RIDE, "data": "{"}, "field 'data' is not JSON"),
            ({**RIDE, "data": [1]}, "field 'data' must be a JSON object"),
            ({**RIDE, "note": object()}, "object"),
            ({**RIDE, "note": "half a pair \ud800"}, ""),
        ],
    )
    def test_invalid_with_and_without_handlers(
        self, form: str, handlers: bool, event: dict[str, Any], named: str
    ) -> None:
        reason, said = refusal(event, form, handlers=handlers)
        assert reason == "invalid"
        assert named in said

    @pytest.mark.parametrize("form", FORMS)
    def test_with_handlers_the_payload_is_checked(self, form: str) -> None:
        assert "field 'bike_id' is missing" in refusal({"type": "ridden"}, form)[1]
        assert "field 'bike_id'" in refusal({**RIDE, "bike_id": "a\x07"}, form)[1]
        assert "field 'stars'" in refusal({**RIDE, "stars": 6}, form)[1]
        assert "field 'charge'" in refusal({**RIDE, "charge": float("nan")}, form)[1]
        assert fields_of({"type": "ridden"}, form, handlers=False)

    def test_unknown_types_and_domains_say_what_there_is(self) -> None:
        assert refusal({**RIDE, "type": "flown"}) == (
            "unknown_type",
            "no handler takes type 'flown' of domain 'bikes'; it has ridden",
        )
        assert refusal(RIDE, domain="cars") == (
            "unknown_type",
            "no handler takes type 'ridden' of domain 'cars'; the handlers are for bikes",
        )

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("handlers", [True, False])
    def test_too_large(self, form: str, handlers: bool) -> None:
        event = {**RIDE, "colour": "x" * 2000}
        reason, said = refusal(event, form, handlers=handlers, max_entry_bytes=1000)
        assert reason == "too_large"
        assert "at most 1000 (MAX_ENTRY_BYTES)" in said

    def test_too_many_fields(self) -> None:
        event = {**RIDE, **{f"f{n}": n for n in range(MAX_FIELDS)}}
        assert refusal(event)[0] == "too_large"

    def test_what_is_no_event(self) -> None:
        assert "mapping or a msgspec.Struct, not list" in refusal([RIDE])[1]
        assert "cannot be sent" in refusal({**RIDE, 7: "x"})[1]


class TestStreams:
    def prepared(self, stream: str, event: Any, names: KeyNames, handlers: bool = True) -> str:
        preparer = Preparer(encoder(handlers=handlers), names, new_id=None, now_ms=lambda: ENTRY_MS)
        return preparer.prepare(stream, event).stream

    def test_by_domain_or_in_full(self) -> None:
        assert self.prepared("bikes", RIDE, KeyNames()) == "events:bikes"
        assert self.prepared("events:bikes", RIDE, KeyNames()) == "events:bikes"
        assert self.prepared("events:bikes:3", RIDE, KeyNames()) == "events:bikes:3"
        names = KeyNames("{domain}:events:{shard}")
        assert self.prepared("bikes", RIDE, names) == "bikes:events:0"
        assert self.prepared("bikes:events:2", RIDE, names) == "bikes:events:2"

    def test_a_sharded_domain_by_the_ordering_key(self) -> None:
        names = KeyNames(shards={"bikes": 4})
        for n in range(20):
            event = {**RIDE, "bike_id": f"b{n}"}
            assert self.prepared("bikes", event, names) == names.stream("bikes", f"b{n}")
            event["job_id"] = f"j{n}"
            assert self.prepared("bikes", event, names) == names.stream("bikes", f"j{n}")
            assert self.prepared("bikes", event, names, handlers=False) == names.stream("bikes", f"j{n}")

    def test_without_a_key_nobody_guesses(self) -> None:
        with pytest.raises(ConfigurationError, match=r"'bikes' has 4 shards.*give handlers"):
            self.prepared("bikes", RIDE, KeyNames(shards={"bikes": 4}), handlers=False)
