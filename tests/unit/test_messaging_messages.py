"""Names of channels and bytes of messages, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from event_router.core.channels import Channel, Channels, check_channel
from event_router.core.errors import ConfigurationError, InvalidMessage, UndecodableMessage
from event_router.messaging.channels import Pattern, channel_or_pattern
from event_router.messaging.messages import Gap, MessageDecoder, encode_message

FIRST_MS = 1_767_225_600_000


def encoded(event: object, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode_message(event, **({"id": "7", "time_ms": FIRST_MS} | options)))
    return found


class TestNames:
    def test_are_those_of_the_design(self) -> None:
        names = Channels()
        assert names.job("j-1") == "sse:events:j-1"
        assert names.user(123) == "user:123"
        assert names.room("garden") == "chat:garden"
        assert names.event("login") == "events:login"

    def test_of_jobs_follow_the_template(self) -> None:
        names = Channels("events:sse:{job_id}")
        assert names.job("1") == "events:sse:1"
        assert names.label("events:sse:1") == "events:sse:{job_id}"
        assert names.label("events:login") == "events:{type}"
        with pytest.raises(ConfigurationError, match=r"has no \{job_id\}"):
            Channels("jobs")

    @pytest.mark.parametrize(
        ("channel", "label"),
        [
            ("sse:events:1", "sse:events:{job_id}"),
            ("user:1", "user:{user_id}"),
            ("chat:a:b", "chat:{room_id}"),
            ("events:*", "events:{type}"),
            ("notifications", "notifications"),
            ("presence", "presence"),
            ("updates", "updates"),
            ("user:", "other"),
            ("whatever", "other"),
        ],
    )
    def test_have_a_bounded_label(self, channel: str, label: str) -> None:
        assert Channels().label(channel) == label

    @pytest.mark.parametrize("bad", ["", "a\nb", "x" * 513, "\ud800"])
    def test_are_made_of_identifiers(self, bad: str) -> None:
        for make in (Channels().job, Channels().user, Channels().room, Channels().event):
            with pytest.raises(InvalidMessage):
                make(bad)

    def test_of_the_dotted_form_mean_the_one_with_a_colon(self) -> None:
        assert check_channel("events.login") == "events:login"
        assert channel_or_pattern("events.*") == "events:*"
        assert check_channel("my.channel") == "my.channel"

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (7, "must be text, not int"),
            ("", "it is empty"),
            ("a\r\nb", "control characters"),
            ("x" * 1025, "1025 bytes; at most 1024"),
            ("é" * 513, "1026 bytes"),
            ("\udc80", "no valid Unicode"),
        ],
    )
    def test_that_cannot_be_say_why(self, bad: object, why: str) -> None:
        with pytest.raises(InvalidMessage, match=why):
            check_channel(bad)


class TestPatterns:
    @pytest.mark.parametrize("name", ["chat:*", "chat:room-?", "chat:[ab]", "a\\[b*", "*" * 8])
    def test_are_recognised(self, name: str) -> None:
        assert isinstance(channel_or_pattern(name), Pattern)

    def test_an_id_with_a_star_makes_none(self) -> None:
        assert isinstance(channel_or_pattern(Channels().user("*")), Channel)
        assert isinstance(channel_or_pattern("notifications"), Channel)

    @pytest.mark.parametrize(
        ("bad", "why"),
        [("chat:[ab", "not closed"), ("chat:*\\", "escapes nothing"), ("*" * 9, "9 stars; at most 8")],
    )
    def test_that_are_not_whole_are_refused(self, bad: str, why: str) -> None:
        with pytest.raises(InvalidMessage, match=why):
            channel_or_pattern(bad)


class Note(msgspec.Struct):
    text: str
    id: str = ""


class Tagged(msgspec.Struct, tag="tagged"):
    number: int


class TestEncoding:
    def test_adds_id_and_timestamp(self) -> None:
        assert encoded({"text": "hi"}) == {"id": "7", "timestamp": "2026-01-01T00:00:00.000Z", "text": "hi"}
        assert encoded({"id": None, "timestamp": ""})["id"] == "7"

    def test_keeps_those_that_are_given(self) -> None:
        given = {"id": "mine", "timestamp": "2020-02-02T00:00:00.000Z"}
        assert encoded(given) == given
        assert encoded({"id": 8})["id"] == "8"
        moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
        assert encoded({"timestamp": moment})["timestamp"] == "2026-01-02T03:04:05.678Z"

    def test_is_utf8_and_not_escaped(self) -> None:
        assert "Zoë 안녕".encode() in encode_message({"name": "Zoë 안녕"}, id="7", time_ms=FIRST_MS)

    def test_takes_structs(self) -> None:
        assert encoded(Note("hi"))["id"] == "7"
        assert encoded(Note("hi", "mine"))["id"] == "mine"
        assert encoded(Tagged(1)) | {"id": ""} == {
            "id": "",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "type": "tagged",
            "number": 1,
        }

    @pytest.mark.parametrize(
        "bad",
        [
            [1],
            "text",
            None,
            {"x": object()},
            {"x": "\ud800"},
            {"id": "a\nb"},
            {"id": ["a"]},
            {"id": "x" * 513},
            {(1, 2): 3},
        ],
    )
    def test_refuses_what_is_no_object_of_json(self, bad: object) -> None:
        with pytest.raises(InvalidMessage):
            encoded(bad)

    def test_refuses_what_has_no_end(self) -> None:
        endless: dict[str, object] = {}
        endless["self"] = endless
        with pytest.raises(InvalidMessage):
            encoded(endless)


class TestDecoding:
    def test_of_any_object(self) -> None:
        payload = encode_message({"type": "t", "n": 1}, id="7", time_ms=FIRST_MS)
        message = MessageDecoder().decode("events:t", "events:*", payload)
        assert message.data == {"id": "7", "timestamp": "2026-01-01T00:00:00.000Z", "type": "t", "n": 1}
        assert (message.channel, message.pattern) == ("events:t", "events:*")
        assert (message.id, message.type) == ("7", "t")
        assert message.timestamp == "2026-01-01T00:00:00.000Z"

    def test_of_structs_and_unions(self) -> None:
        payload = encode_message(Tagged(5), id="7", time_ms=FIRST_MS)
        message = MessageDecoder(Tagged | Other).decode("updates", None, payload)
        assert message.data == Tagged(5)
        assert (message.id, message.type) == ("7", "tagged")

    def test_of_what_other_programs_publish(self) -> None:
        message = MessageDecoder().decode("x", None, b'{"id": 5, "timestamp": 1.5, "type": ["t"]}')
        assert (message.id, message.timestamp, message.type) == ("5", "", "")

    @pytest.mark.parametrize(
        "payload",
        [b"", b"no JSON", b"[1]", b"7", b'{"a": 1', b"\xff\xfe", b'{"a": "\xff"}', b'{"a":' * 100_000],
    )
    def test_of_anything_else_is_refused(self, payload: bytes) -> None:
        with pytest.raises(UndecodableMessage):
            MessageDecoder(max_bytes=10**7).decode("x", None, payload)
        with pytest.raises(UndecodableMessage):
            MessageDecoder(Note, max_bytes=10**7).decode("x", None, payload)

    def test_of_what_is_too_large_or_of_another_type_is_refused(self) -> None:
        with pytest.raises(UndecodableMessage, match="11 bytes; at most 10"):
            MessageDecoder(max_bytes=10).decode("x", None, b'{"a": "bc"}')
        with pytest.raises(UndecodableMessage, match="text"):
            MessageDecoder(Note).decode("x", None, b'{"id": "1"}')


class Other(msgspec.Struct, tag="other"):
    text: str


def test_gaps_add_up() -> None:
    assert Gap(2) + Gap(3, reconnected=True) == Gap(5, reconnected=True)
