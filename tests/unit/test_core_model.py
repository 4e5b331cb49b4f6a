"""The model in its own right; the property tests hold the commit script against it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router.core.effects import Newest, Once, UnitOfWork
from event_router.core.errors import NoGroup
from event_router.core.model import StateModel
from event_router.core.outcome import Answer, DeadLetter, Settlement, Verdict
from event_router.core.versions import newer

STREAM = "events:x"


def model(**hashes: dict[str, str]) -> StateModel:
    made = StateModel({key: dict(fields) for key, fields in hashes.items()})
    for entry_id in ("1-0", "2-0", "3-0"):
        made.deliver(STREAM, entry_id)
    return made


def of(work: UnitOfWork | DeadLetter, entry_id: str = "1-0") -> Settlement:
    return Settlement(STREAM, entry_id, work)


def incrementing(field: str = "n", amount: int = 1) -> UnitOfWork:
    unit = UnitOfWork()
    unit.hash("k").increment(field, amount)
    return unit


class TestCommit:
    def test_the_first_commit_of_an_entry_counts_and_no_other(self) -> None:
        state = model()
        answers = state.commit_batch([of(incrementing()), of(incrementing()), of(incrementing(), "9-9")])
        assert [answer.verdict for answer in answers] == [
            Verdict.COMMITTED,
            Verdict.SETTLED,
            Verdict.SETTLED,
        ]
        assert state.hashes == {"k": {"n": "1"}}
        assert state.pending == {STREAM: {"2-0", "3-0"}}

    def test_a_missing_group_leaves_everything_as_it_is(self) -> None:
        state = model()
        with pytest.raises(NoGroup):
            state.commit_batch([of(incrementing()), Settlement("events:y", "1-0", incrementing())])
        assert state.hashes == {}

    def test_nothing_in_part(self) -> None:
        state = model(k={"text": "x"})
        unit = incrementing()
        unit.hash("k").increment("text", 1)
        unit.emit("log", {"a": "b"}, None)
        answer = state.commit(of(unit))
        assert answer == Answer(Verdict.INVALID, "field 'text' of key 'k' holds 'x', not a 64-bit integer")
        assert (state.hashes, state.streams) == ({"k": {"text": "x"}}, {})
        assert "1-0" in state.pending[STREAM]

    def test_stale_reads_conflict(self) -> None:
        state = model(k={"n": "1"})
        unit = incrementing()
        unit.hash("k").note("n", None)
        assert state.commit(of(unit)).verdict is Verdict.CONFLICT

    def test_a_dead_letter_keeps_the_bytes(self) -> None:
        state = model()
        letter = DeadLetter("invalid", "why", 1, "c", "t", [b"\xff", b"v"])
        assert state.commit(of(letter)).verdict is Verdict.COMMITTED
        ((*entry,),) = state.streams[f"dlq:{STREAM}"]
        assert entry[:6] == ["\udcff", "v", "dlq_stream", STREAM, "dlq_id", "1-0"]

    def test_a_mark_and_a_newest_record(self) -> None:
        state = model()
        for entry_id, seq in (("1-0", 2), ("2-0", 1), ("3-0", 3)):
            unit, once = UnitOfWork(), Once("m", 5)
            once.hash("k").increment("once", 1)
            step = Newest("job", f"0:{seq}:{entry_id}@s", {"stage": str(seq)}, 7)
            step.hash("k").increment("steps", 1)
            unit.branches += (once, step)
            state.commit(of(unit, entry_id))
        assert state.hashes["k"] == {"once": "1", "steps": "2"}
        assert state.hashes["job"]["stage"] == "3"
        assert state.ttl_ms == {"m": 5, "job": 7}

    def test_a_hash_without_fields_is_gone(self) -> None:
        state = model(k={"a": "1"})
        unit = UnitOfWork()
        unit.hash("k").delete("a")
        assert state.commit(of(unit)).verdict is Verdict.COMMITTED
        assert state.type_of("k") == "none"


versions = st.builds(
    lambda numbers, stream: f"{':'.join(map(str, numbers))}@{stream}",
    st.lists(st.integers(0, 2**64) | st.integers(0, 20), min_size=3, max_size=3),
    st.text(max_size=3).map(lambda text: text.encode("utf-8", "ignore").decode()),
)


class TestVersions:
    @settings(deadline=None)
    @given(versions, versions)
    def test_numbers_compare_as_numbers_then_the_stream_as_bytes(self, one: str, other: str) -> None:
        def ranked(version: str) -> tuple[list[int], bytes]:
            numbers, _, stream = version.partition("@")
            return [int(number) for number in numbers.split(":")], stream.encode()

        assert newer(one, other) == (ranked(one) > ranked(other))

    @settings(deadline=None)
    @given(versions)
    def test_a_version_does_not_beat_itself(self, version: str) -> None:
        assert not newer(version, version)

    def test_what_is_stored_may_be_anything(self) -> None:
        assert newer("1:1-1@s", "")
        assert newer("1:1-1@s", "\udcff") is False
