"""When a failed event is tried again."""

from __future__ import annotations

from event_router.core.retry import RetryPolicy


def policy(random: float = 1.0, **changed: float) -> RetryPolicy:
    values = {"max_deliveries": 5, "backoff_ms": 1_000, "factor": 2, "longest_ms": 60_000, **changed}
    return RetryPolicy(random=lambda: random, **values)  # type: ignore[arg-type]


class TestDelay:
    def test_it_doubles(self) -> None:
        assert [policy().delay_ms(attempt) for attempt in (1, 2, 3, 4)] == [1_000, 2_000, 4_000, 8_000]

    def test_no_delay_is_longer_than_the_claim_idle_time(self) -> None:
        assert policy().delay_ms(7) == 60_000
        assert policy().delay_ms(5_000) == 60_000

    def test_jitter_takes_off_a_quarter_at_most(self) -> None:
        assert policy(0.0).delay_ms(1) == 750
        assert policy(0.5).delay_ms(1) == 875
        assert policy(0.0).delay_ms(100) == 45_000

    def test_an_attempt_that_was_given_back_counts_as_the_first(self) -> None:
        assert policy().delay_ms(0) == 1_000

    def test_a_factor_of_one_keeps_the_delay(self) -> None:
        assert policy(factor=1).delay_ms(40) == 1_000


class TestExhausted:
    def test_after_the_last_start(self) -> None:
        assert [attempt for attempt in range(8) if policy().exhausted(attempt)] == [5, 6, 7]

    def test_one_start_may_be_all(self) -> None:
        assert policy(max_deliveries=1).exhausted(1)
