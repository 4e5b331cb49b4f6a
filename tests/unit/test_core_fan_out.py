"""What becomes of a fan-out log's entries, and what was trimmed unread."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_router.core.errors import InvalidMessage
from event_router.core.fan_out import Extent, Progress, Record, published_form, record, unseen_before


class TestMessages:
    def test_an_entry_is_a_record_whatever_the_order_of_its_fields(self) -> None:
        fields = [b"message", b"{}", b"later", b"x", b"channel", b"updates", b"type", b"t"]
        assert record("1-1", fields) == Record("1-1", b"updates", "t", b"{}")

    @pytest.mark.parametrize("fields", [[], [b"channel", b"", b"message", b"{}"], [b"channel", b"c"]])
    def test_without_channel_or_message_it_is_none(self, fields: list[bytes]) -> None:
        with pytest.raises(InvalidMessage, match="1-1"):
            record("1-1", fields)

    @given(
        st.dictionaries(
            st.text() | st.sampled_from(["id", "domain", "timestamp"]),
            st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.lists(st.text()),
        )
    )
    def test_nothing_but_id_and_a_missing_domain_is_changed(self, members: dict[str, object]) -> None:
        sent = json.loads(published_form(json.dumps(members).encode(), "7-1", "chat"))
        assert sent == {"domain": "chat"} | members | {"id": "7-1"}

    @pytest.mark.parametrize("message", [b"", b"[]", b"1", b'{"a":', b"\xff", b'{"a":1}x', b"[" * 5_000])
    def test_what_is_no_object_is_refused(self, message: bytes) -> None:
        with pytest.raises(InvalidMessage, match="7-1"):
            published_form(message, "7-1", "chat")


class TestTrimmed:
    def test_at_the_end_everything_added_was_seen_or_trimmed(self) -> None:
        assert unseen_before(Extent(60, 20, "41-0", "60-0"), Progress("60-0", 30)) == 30
        assert unseen_before(Extent(60, 20, "41-0", "60-0"), Progress("60-0", 60)) == 0

    def test_before_the_first_entry_what_is_gone_was_seen_or_trimmed(self) -> None:
        assert unseen_before(Extent(60, 20, "41-0", "60-0"), Progress("10-0", 10)) == 30
        assert unseen_before(Extent(60, 20, "41-0", "60-0"), Progress("40-0", 40)) == 0

    def test_an_empty_log_has_lost_all_behind_the_progress(self) -> None:
        assert unseen_before(Extent(60, 0, "", "60-0"), Progress("10-0", 10)) == 50

    def test_in_the_middle_nobody_knows(self) -> None:
        assert unseen_before(Extent(60, 20, "41-0", "60-0"), Progress("50-0", 10)) is None

    def test_no_log_yet(self) -> None:
        assert unseen_before(Extent(), Progress()) == 0

    def test_a_log_made_anew_counts_below_zero(self) -> None:
        assert unseen_before(Extent(3, 3, "70-0", "72-0"), Progress("60-0", 60)) == -60

    @given(st.lists(st.tuples(st.sampled_from("atr"), st.integers(0, 9))))
    def test_whatever_happens_the_sum_is_right_in_the_end(self, steps: list[tuple[str, int]]) -> None:
        added, kept, seen_ids, progress, counted = 0, list[int](), set[int](), Progress(), 0

        def look() -> None:
            nonlocal progress, counted
            extent = Extent(added, len(kept), f"{kept[0]}-0" if kept else "", f"{added}-0")
            unseen = unseen_before(extent, progress)
            if unseen:
                counted += unseen
                progress = Progress(progress.id, progress.seen + unseen)

        def read(count: int) -> None:
            nonlocal progress
            behind = [n for n in kept if n > int(progress.id.partition("-")[0])][:count]
            seen_ids.update(behind)
            if behind:
                progress = Progress(f"{behind[-1]}-0", progress.seen + len(behind))

        for step, count in steps:
            if step == "a":
                kept += range(added + 1, added + count + 1)
                added += count
            elif step == "t":
                del kept[:count]
            else:
                look()
                read(count)
        read(len(kept))
        look()
        assert counted == added - len(seen_ids)
        assert progress.seen == added
