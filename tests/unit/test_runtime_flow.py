"""How much may be in flight, and what is remembered of the state."""

from __future__ import annotations

import pytest

from event_router.runtime.flow import FIRST_LIMIT, LEAST_LIMIT, Measured, next_limit
from event_router.runtime.recent import MOST_WRONG, PAUSE_S, TRIAL, RecentState

MOST = 2_000


def after(times: int, limit: int, measured: Measured, most: int = MOST) -> int:
    for _ in range(times):
        limit = next_limit(limit, measured, most)
    return limit


class TestNextLimit:
    def test_it_grows_while_it_holds_back_reading(self) -> None:
        waiting_for_others = Measured(rate=40, full=True, cpu=0.1)
        assert next_limit(500, waiting_for_others, MOST) == 1_000
        assert after(10, FIRST_LIMIT, waiting_for_others) == MOST

    def test_handlers_that_wait_are_never_starved(self) -> None:
        # 1,000 handlers of 30 seconds each settle 33 a second: the limit must not follow the rate.
        assert after(50, 1_000, Measured(rate=33, full=False, cpu=0.3)) == 1_000

    def test_busy_handlers_get_about_a_second_of_work(self) -> None:
        busy = Measured(rate=300, full=True, cpu=1.0)
        assert next_limit(500, busy, MOST) == 300
        assert after(10, MOST, busy) == 300

    def test_it_shrinks_by_half_at_most_at_a_time(self) -> None:
        assert next_limit(1_000, Measured(rate=5, full=True, cpu=1.0), MOST) == 500

    def test_it_never_falls_below_the_least(self) -> None:
        assert after(20, MOST, Measured(rate=0, full=True, cpu=1.0)) == LEAST_LIMIT

    @pytest.mark.parametrize("most", [1, 10, 31])
    def test_a_smaller_setting_wins(self, most: int) -> None:
        assert after(20, most, Measured(rate=0, full=True, cpu=1.0), most) == most
        assert after(20, 1, Measured(rate=5_000, full=True, cpu=0.5), most) == most

    def test_a_fast_busy_router_keeps_its_limit(self) -> None:
        assert next_limit(1_000, Measured(rate=30_000, full=True, cpu=1.0), MOST) == 1_000

    def test_an_idle_one_keeps_its_limit(self) -> None:
        assert next_limit(700, Measured(rate=1, full=False, cpu=0.01), MOST) == 700


class TestRecentState:
    def state(self, capacity: int = 100) -> RecentState:
        self.now = 0.0
        return RecentState(lambda: self.now, capacity)

    def test_what_was_kept_is_given_once(self) -> None:
        recent = self.state()
        recent.keep("k", {"a": "1", "b": None})
        assert recent.take("k") == {"a": "1", "b": None}
        assert recent.take("k") is None

    def test_it_holds_no_more_than_its_capacity(self) -> None:
        recent = self.state(capacity=3)
        for number in range(10):
            recent.keep(f"k{number}", {"a": str(number)})
        assert len(recent) == 3
        assert recent.take("k6") is None
        assert recent.take("k9") == {"a": "9"}

    def test_it_pauses_when_too_much_of_it_is_wrong(self) -> None:
        recent = self.state()
        self._use(recent, TRIAL, wrong=int(TRIAL * MOST_WRONG) + 1)
        assert len(recent) == 0
        recent.keep("k", {"a": "1"})
        assert recent.take("k") is None

    def test_after_the_pause_it_goes_on(self) -> None:
        recent = self.state()
        self._use(recent, TRIAL, wrong=TRIAL)
        self.now += PAUSE_S
        recent.keep("k", {"a": "1"})
        assert recent.take("k") == {"a": "1"}

    def test_a_few_wrong_ones_do_not_matter(self) -> None:
        recent = self.state()
        for _ in range(10):
            self._use(recent, TRIAL, wrong=int(TRIAL * MOST_WRONG))
        recent.keep("k", {"a": "1"})
        assert recent.take("k") == {"a": "1"}

    def test_a_long_good_time_does_not_hide_a_bad_one(self) -> None:
        recent = self.state()
        self._use(recent, 10_000, wrong=0)
        recent.wrong()
        self._use(recent, TRIAL, wrong=TRIAL)
        recent.keep("k", {"a": "1"})
        assert recent.take("k") is None

    @staticmethod
    def _use(recent: RecentState, uses: int, *, wrong: int) -> None:
        for number in range(uses):
            recent.keep("used", {"a": "1"})
            recent.take("used")
            if number >= uses - wrong:
                recent.wrong()
