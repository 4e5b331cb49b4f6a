"""When a domain's breaker opens, and when it must not."""

from __future__ import annotations

from event_router.core.breaker import CircuitBreaker

BIKES = "events:bikes"


class Domain:
    """A breaker with a clock that a test moves, and attempts in short form."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.breaker = CircuitBreaker(lambda: self.now)
        self.number = 0

    def _entry(self) -> tuple[str, str]:
        self.number += 1
        return BIKES, f"{self.number}-0"

    def succeed(self, times: int = 1, key: str = "good") -> None:
        for _ in range(times):
            self.breaker.succeeded()

    def fail(self, times: int = 1, keys: int = 10, previous: float | None = None) -> bool:
        opened = False
        for index in range(times):
            opened |= self.breaker.failed(self._entry(), f"k{index % keys}", previous)
        return opened


class TestMajority:
    def test_ten_failures_of_several_keys_open_it(self) -> None:
        domain = Domain()
        assert not domain.fail(9)
        assert domain.fail(1)
        assert domain.breaker.open

    def test_only_the_attempt_that_opens_it_says_so(self) -> None:
        domain = Domain()
        domain.fail(10)
        assert not domain.fail(1)
        assert domain.breaker.open

    def test_half_is_no_majority(self) -> None:
        domain = Domain()
        for index in range(200):
            domain.succeed()
            domain.breaker.failed((BIKES, f"{index}-9"), f"k{index}", None)
        assert not domain.breaker.open

    def test_more_than_half_is(self) -> None:
        domain = Domain()
        for index in range(30):
            domain.breaker.failed((BIKES, f"{index}-9"), f"k{index}", None)
            if index % 3 == 0:
                domain.succeed()
        assert domain.breaker.open

    def test_old_attempts_leave_the_window(self) -> None:
        domain = Domain()
        domain.succeed(1_000)
        for index in range(52):
            domain.breaker.failed((BIKES, f"{index}-9"), f"k{index}", None)
            domain.breaker.succeeded() if index % 4 == 0 else None
        assert domain.breaker.open, repr(domain.breaker)


class TestKeys:
    def test_failures_of_two_entities_are_no_outage(self) -> None:
        domain = Domain()
        domain.fail(200, keys=2)
        assert not domain.breaker.open

    def test_a_third_entity_makes_it_one(self) -> None:
        domain = Domain()
        domain.fail(200, keys=2)
        assert domain.breaker.failed((BIKES, "9999-0"), "another", None)


class TestOwnFault:
    def test_failing_again_after_others_succeeded_is_not_counted(self) -> None:
        domain = Domain()
        failed_at = domain.now
        domain.now += 1
        domain.succeed()
        domain.now += 1
        domain.fail(500, previous=failed_at)
        assert not domain.breaker.open
        assert not domain.breaker.failures()

    def test_failing_again_with_nothing_in_between_is(self) -> None:
        domain = Domain()
        domain.succeed()
        domain.now += 1
        failed_at = domain.now
        domain.now += 1
        assert domain.fail(10, previous=failed_at)

    def test_one_poisonous_event_in_a_hundred_never_opens_it(self) -> None:
        domain = Domain()
        for index in range(10_000):
            domain.now += 0.001
            if index % 100 == 0:
                domain.breaker.failed((BIKES, f"{index}-1"), f"k{index}", None)
            else:
                domain.succeed()
        assert not domain.breaker.open


class TestTime:
    def test_an_outage_after_long_success_is_seen_by_its_trailing_failures(self) -> None:
        domain = Domain()
        domain.succeed(100)
        assert not domain.fail(9)
        assert domain.fail(1)

    def test_a_success_ends_the_trailing_failures(self) -> None:
        domain = Domain()
        domain.succeed(90)
        domain.fail(9)
        domain.succeed()
        domain.fail(9)
        assert not domain.breaker.open

    def test_a_quiet_domain_is_judged_by_the_last_minute(self) -> None:
        domain = Domain()
        domain.fail(9)
        domain.now += 61
        assert not domain.fail(1)
        assert domain.fail(9)

    def test_a_quiet_domain_needs_ten_attempts(self) -> None:
        domain = Domain()
        for _ in range(20):
            domain.fail(1)
            domain.now += 7
        assert not domain.breaker.open


class TestClosing:
    def test_it_stays_open_until_it_is_closed(self) -> None:
        domain = Domain()
        domain.fail(10)
        domain.succeed(100)
        domain.now += 1_000
        assert domain.breaker.open

    def test_closed_it_starts_anew(self) -> None:
        domain = Domain()
        domain.fail(10)
        domain.breaker.close()
        assert not domain.breaker.failures()
        assert not domain.fail(9)
        assert domain.fail(1)

    def test_failures_are_counted_by_entry(self) -> None:
        domain = Domain()
        for _ in range(3):
            domain.breaker.failed((BIKES, "1-0"), "a", None)
        domain.breaker.failed((BIKES, "2-0"), "b", None)
        domain.succeed()
        assert domain.breaker.failures() == {(BIKES, "1-0"): 3, (BIKES, "2-0"): 1}

    def test_it_shows_its_state(self) -> None:
        domain = Domain()
        domain.fail(2)
        domain.succeed()
        assert repr(domain.breaker) == "<CircuitBreaker closed 2/3 failed>"
