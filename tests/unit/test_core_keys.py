"""Names on the wire, shards and entry ids."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router.core.entry_id import before, parse_id
from event_router.core.errors import StateError
from event_router.core.keys import KeyNames, checkpoint_key, dead_letter_stream, shard_of


class TestStreams:
    def test_one_without_shards(self) -> None:
        assert KeyNames().streams("auth") == ("events:auth",)
        assert KeyNames().stream("auth", "any") == "events:auth"

    def test_one_for_each_shard(self) -> None:
        names = KeyNames(shards={"chat": 3})
        assert names.streams("chat") == ("events:chat:0", "events:chat:1", "events:chat:2")
        assert names.streams("auth") == ("events:auth",)

    def test_another_template(self) -> None:
        names = KeyNames(stream_template="{domain}:events:{shard}", shards={"scan": 2})
        assert names.streams("scan") == ("scan:events:0", "scan:events:1")
        assert names.streams("auth") == ("auth:events:0",)

    @settings(deadline=None)
    @given(st.text(), st.integers(2, 64))
    def test_an_ordering_key_has_one_shard(self, key: str, shards: int) -> None:
        key = key.encode("utf-8", "ignore").decode()
        expected = int(hashlib.md5(key.encode()).hexdigest(), 16) % shards
        assert shard_of(key, shards) == expected
        assert KeyNames(shards={"x": shards}).stream("x", key) == f"events:x:{expected}"

    def test_shards_known_by_heart(self) -> None:
        """Producers in other languages compute the same."""
        assert [shard_of(key, 4) for key in ("job-1", "job-2", "ä", "")] == [
            int(hashlib.md5(key.encode()).hexdigest()[-1], 16) % 4 for key in ("job-1", "job-2", "ä", "")
        ]


class TestNames:
    def test_are_those_of_the_contract(self) -> None:
        names = KeyNames()
        assert names.entity("user", "123") == "state:user:123"
        assert names.statistics("daily", "2026-01-01") == "stats:daily:2026-01-01"
        assert names.job_state("scan", "j") == "scan:state:j"
        assert names.job_channel("j") == "sse:events:j"
        assert names.outbox("chat") == "outbox:chat"
        assert names.mark("m") == "event-router:mark:m"
        assert dead_letter_stream("events:auth") == "dlq:events:auth"
        assert checkpoint_key("g") == "event-router:checkpoint:g"

    def test_braces_in_an_id_stay(self) -> None:
        names = KeyNames()
        assert names.job_state("scan", "{domain}") == "scan:state:{domain}"
        assert names.entity("user", "{job_id}") == "state:user:{job_id}"
        assert names.job_channel("{job_id}") == "sse:events:{job_id}"

    def test_templates(self) -> None:
        names = KeyNames(
            state_prefix="app", job_state_template="jobs:{job_id}", job_channel_template="c:{job_id}"
        )
        assert (names.entity("user", "1"), names.job_state("scan", "j"), names.job_channel("j")) == (
            "app:user:1",
            "jobs:j",
            "c:j",
        )

    def test_a_type_that_is_no_word_is_refused(self) -> None:
        with pytest.raises(StateError):
            KeyNames().entity("a:b", "1")


ids = st.builds(lambda ms, seq: f"{ms}-{seq}", st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


class TestEntryIds:
    @settings(deadline=None)
    @given(ids)
    def test_are_two_numbers(self, entry_id: str) -> None:
        milliseconds, sequence = parse_id(entry_id)
        assert f"{milliseconds}-{sequence}" == entry_id

    def test_the_sequence_may_be_left_out(self) -> None:
        assert parse_id("5") == (5, 0)

    @settings(deadline=None)
    @given(ids)
    def test_nothing_lies_between_an_id_and_the_one_before(self, entry_id: str) -> None:
        earlier = parse_id(before(entry_id))
        milliseconds, sequence = earlier
        follower = (milliseconds, sequence + 1) if sequence < 2**64 - 1 else (milliseconds + 1, 0)
        assert entry_id == "0-0" or follower == parse_id(entry_id)

    def test_the_first_id_has_none_before_it(self) -> None:
        assert before("0-0") == "0-0"
        assert before("1-0") == f"0-{2**64 - 1}"
