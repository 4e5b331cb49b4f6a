"""Effects fold into one per field, and those that contradict each other are refused."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_router.core.effects import Effects, Newest, Once, UnitOfWork
from event_router.core.errors import StateError
from event_router.core.hash_effects import INCREMENT, MAXIMUM, HashEffects, is_canonical
from event_router.core.values import encode_value, text_bytes, ttl_in_ms

Record = Callable[[HashEffects], None]


class Colour(enum.IntEnum):
    RED = 1


class Size(enum.StrEnum):
    LARGE = "large"


class Points(int, enum.Enum):
    WIN = 3


class TestValues:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("text", "text"),
            ("", ""),
            (7, "7"),
            (-(2**70), str(-(2**70))),
            (1.5, "1.5"),
            (True, "true"),
            (False, "false"),
            (b"\xff\x00", "\udcff\x00"),
            ("ä".encode(), "ä"),
            (Colour.RED, "1"),
            (Size.LARGE, "large"),
            (datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC), "2026-01-02T03:04:05.678Z"),
            (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:00:00.000Z"),
            (date(2026, 1, 2), "2026-01-02"),
        ],
    )
    def test_have_a_text(self, value: object, text: str) -> None:
        assert encode_value(value) == text

    @pytest.mark.parametrize("value", [None, [], {"a": 1}, object(), "\ud800", "a\udc00"])
    def test_or_are_refused(self, value: object) -> None:
        with pytest.raises(StateError):
            encode_value(value)

    @settings(deadline=None)
    @given(st.binary())
    def test_bytes_come_out_as_they_went_in(self, value: bytes) -> None:
        assert text_bytes(encode_value(value)) == value

    @pytest.mark.parametrize("seconds", [0, 0.0009, -1, float("nan"), float("inf"), 10**12])
    def test_a_time_to_live_has_bounds(self, seconds: float) -> None:
        with pytest.raises(StateError, match="mark 'm'"):
            ttl_in_ms(seconds, "mark 'm'")

    def test_a_time_to_live_in_milliseconds(self) -> None:
        assert ttl_in_ms(0.001, "") == 1
        assert ttl_in_ms(3600, "") == 3_600_000


class TestCanonical:
    @pytest.mark.parametrize("text", ["0", "1", "-1", "9223372036854775807", "-9223372036854775808"])
    def test_integers_as_redis_writes_them(self, text: str) -> None:
        assert is_canonical(text)

    @pytest.mark.parametrize(
        "text",
        ["", "-", "-0", "007", "+1", "1.0", " 1", "1 ", "1e3", "9223372036854775808", "٣", "²", "abc", "1_0"],
    )
    def test_and_nothing_else(self, text: str) -> None:
        assert not is_canonical(text)

    @settings(deadline=None)
    @given(st.integers(-(2**63), 2**63 - 1))
    def test_every_64_bit_integer(self, number: int) -> None:
        assert is_canonical(str(number))


def recorded(*records: Record) -> HashEffects:
    effects = Effects().hash("k")
    for record in records:
        record(effects)
    return effects


class TestFolding:
    def test_the_last_set_counts(self) -> None:
        assert recorded(lambda e: e.set("f", 1), lambda e: e.set("f", 2)).changes == {"f": "2"}

    def test_a_member_of_an_enum_is_its_number(self) -> None:
        effects = Effects().hash("k")
        effects.increment("n", Points.WIN)
        effects.maximum("m", Points.WIN)
        assert effects.changes == {"n": 3, "m": (MAXIMUM, "3")}

    def test_increments_add_up(self) -> None:
        effects = recorded(lambda e: e.increment("f", 2), lambda e: e.increment("f", -5))
        assert effects.changes == {"f": -3}

    def test_increments_beyond_15_digits_are_text(self) -> None:
        effects = recorded(
            *(lambda e, n=n: e.increment("a", n) for n in (10**15 - 1, 1, -1, 1)),  # type: ignore[misc]
            lambda e: e.increment("b", 2**63 - 1),
            *(lambda e: e.increment("b", -(2**62)),) * 2,
        )
        assert effects.changes == {"a": (INCREMENT, "1000000000000000"), "b": -1}
        assert dict(effects.increments()) == {"a": 10**15, "b": -1}

    def test_a_set_replaces_an_increment_and_a_delete(self) -> None:
        effects = recorded(
            lambda e: e.increment("a", 1),
            lambda e: e.delete("b"),
            lambda e: e.set("a", "x"),
            lambda e: e.set("b", "y"),
        )
        assert effects.changes == {"a": "x", "b": "y"}

    def test_an_increment_adds_to_what_was_set(self) -> None:
        assert recorded(lambda e: e.set("f", 40), lambda e: e.increment("f", 2)).changes == {"f": "42"}

    def test_an_increment_after_a_delete_begins_at_0(self) -> None:
        effects = recorded(lambda e: e.delete("f"), lambda e: e.increment("f", 2))
        assert effects.changes == {"f": "2"}

    def test_the_greatest_maximum_counts(self) -> None:
        effects = recorded(*(lambda e, n=n: e.maximum("f", n) for n in (3, 7, -1)))  # type: ignore[misc]
        assert effects.changes == {"f": (MAXIMUM, "7")}

    @pytest.mark.parametrize(
        "other",
        [
            lambda e: e.set("f:version", "9:1-1@s"),
            lambda e: e.increment("f:version", 1),
            lambda e: e.maximum("f:version", 1),
            lambda e: e.delete("f:version"),
            lambda e: e.set_latest("f:version", "v", "1:1-1@s"),
        ],
    )
    def test_where_a_version_stands_nothing_else_is_written(self, other: Record) -> None:
        def latest(effects: HashEffects) -> None:
            effects.set_latest("f", "v", "1:1-1@s")

        for first, second in ((latest, other), (other, latest)):
            with pytest.raises(StateError, match=r"k f:version.*: .* contradicts"):
                recorded(first, second)

    def test_a_delete_forgets_what_was_recorded(self) -> None:
        effects = recorded(
            lambda e: e.set("a", 1),
            lambda e: e.increment("b", 1),
            lambda e: e.maximum("c", 1),
            lambda e: e.set_latest("d", 1, "1:1-1@s"),
            *(lambda e, f=f: e.delete(f) for f in "abcd"),  # type: ignore[misc]
        )
        assert effects.changes == dict.fromkeys("abcd", False)

    def test_clearing_forgets_everything_and_what_comes_after_counts(self) -> None:
        effects = recorded(
            lambda e: e.set("a", 1),
            lambda e: e.delete("b"),
            lambda e: setattr(e, "ttl_ms", 5),
            lambda e: e.clear(),
            lambda e: e.increment("c", 2),
        )
        assert effects.cleared
        assert (effects.changes, effects.ttl_ms) == ({"c": 2}, None)

    def test_only_recorded_effects_count_as_any(self) -> None:
        assert not recorded()
        for record in (
            lambda e: e.set("f", ""),
            lambda e: e.increment("f", 0),
            lambda e: e.delete("f"),
            lambda e: e.clear(),
            lambda e: setattr(e, "ttl_ms", 1),
        ):
            assert recorded(record)


class TestContradictions:
    kinds: dict[str, Record] = {  # noqa: RUF012
        "set": lambda e: e.set("f", 1),
        "increment": lambda e: e.increment("f", 1),
        "maximum": lambda e: e.maximum("f", 1),
        "set_latest": lambda e: e.set_latest("f", 1, "1:1-1@s"),
    }

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("set", "maximum"),
            ("set", "set_latest"),
            ("increment", "maximum"),
            ("increment", "set_latest"),
            ("maximum", "set"),
            ("maximum", "increment"),
            ("maximum", "set_latest"),
            ("set_latest", "set"),
            ("set_latest", "increment"),
            ("set_latest", "maximum"),
        ],
    )
    def test_on_one_field(self, first: str, second: str) -> None:
        with pytest.raises(StateError, match="k f: "):
            recorded(self.kinds[first], self.kinds[second])

    def test_an_increment_of_a_text_that_was_set(self) -> None:
        with pytest.raises(StateError, match="cannot increment 'abc'"):
            recorded(lambda e: e.set("f", "abc"), lambda e: e.increment("f", 1))

    @pytest.mark.parametrize("amount", [2**63, -(2**63) - 1, 1.0, "1", True, None])
    def test_what_is_no_64_bit_integer(self, amount: object) -> None:
        for record in (HashEffects.increment, HashEffects.maximum):
            with pytest.raises(StateError):
                record(Effects().hash("k"), "f", amount)  # type: ignore[arg-type]

    def test_a_sum_that_64_bits_cannot_hold(self) -> None:
        with pytest.raises(StateError):
            recorded(lambda e: e.increment("f", 2**63 - 1), lambda e: e.increment("f", 1))

    @pytest.mark.parametrize("maxlen", [-1, 2**63, True, 1.5, "10"])
    def test_what_is_no_length_of_a_stream(self, maxlen: Any) -> None:
        effects = Effects()
        with pytest.raises(StateError, match="is no length"):
            effects.emit("log", {"a": "b"}, maxlen)
        assert not effects.emissions

    def test_a_stream_may_be_kept_empty(self) -> None:
        effects = Effects()
        effects.emit("log", {"a": "b"}, 0)
        assert effects.emissions[0].maxlen == "0"

    def test_an_emission_has_1_to_1000_fields(self) -> None:
        for count in (0, 1001):
            with pytest.raises(StateError, match=f"{count} fields"):
                Effects().emit("s", {f"f{n}": n for n in range(count)}, None)


class TestConditions:
    """Effects behind a condition meet others on one field only where both are increments."""

    def unit(self, plain: Record, *conditional: Record) -> UnitOfWork:
        unit = UnitOfWork()
        plain(unit.hash("k"))
        for record in conditional:
            once = Once("m", 1)
            record(once.hash("k"))
            unit.branches.append(once)
        return unit

    def test_increments_and_different_fields_may_meet(self) -> None:
        self.unit(
            lambda e: (e.increment("n", 1), e.set("a", 1))[0],
            lambda e: (e.increment("n", 1), e.set("b", 1))[0],
            lambda e: e.set_latest("c", 1, "1:1-1@s"),
        ).refuse_contradictions()

    @pytest.mark.parametrize(
        ("plain", "conditional"),
        [
            (lambda e: e.set("f", 1), lambda e: e.set("f", 2)),
            (lambda e: e.set("f", 1), lambda e: e.increment("f", 2)),
            (lambda e: e.increment("f", 1), lambda e: e.set("f", 2)),
            (lambda e: e.increment("f", 1), lambda e: e.maximum("f", 2)),
            (lambda e: e.increment("f", 1), lambda e: e.delete("f")),
            (lambda e: e.set("f", 1), lambda e: e.clear()),
            (lambda e: e.clear(), lambda e: e.increment("g", 1)),
        ],
    )
    def test_others_are_refused(self, plain: Record, conditional: Record) -> None:
        for unit in (self.unit(plain, conditional), self.unit(lambda e: None, plain, conditional)):
            with pytest.raises(StateError, match="k: "):
                unit.refuse_contradictions()

    @pytest.mark.parametrize(
        "record",
        [
            lambda e: e.set("stage", 1),
            lambda e: e.increment("stage", 1),
            lambda e: e.set("version", 1),
            lambda e: e.clear(),
        ],
    )
    def test_a_record_allows_nothing_else_on_its_fields(self, record: Record) -> None:
        unit = UnitOfWork()
        record(unit.hash("job"))
        unit.branches.append(Newest("job", "0:1:1-1@s", {"stage": "x"}, 1))
        with pytest.raises(StateError, match="job: "):
            unit.refuse_contradictions()

    def test_a_record_allows_other_fields_of_its_key(self) -> None:
        unit = UnitOfWork()
        unit.hash("job").set("owner", "u")
        unit.branches.append(Newest("job", "0:1:1-1@s", {"stage": "x"}, 1))
        unit.branches.append(Newest("job", "0:2:1-1@s", {"stage": "y"}, 1))
        unit.refuse_contradictions()

    @pytest.mark.parametrize("which", [0, 1])
    def test_each_of_several_records_is_held_against_the_effects_on_its_key(self, which: int) -> None:
        unit = UnitOfWork()
        unit.branches.append(Newest("job", "0:1:1-1@s", {"stage": "x"}, 1))
        unit.branches.append(Newest("job", "0:2:1-1@s", {"n": "0"}, 1))
        unit.branches[1].hash("job").maximum(("stage", "n")[which], 5)
        with pytest.raises(StateError, match="job"):
            unit.refuse_contradictions()
