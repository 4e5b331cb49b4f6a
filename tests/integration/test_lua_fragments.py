"""What scripts share does what its Python twin does."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from event_router.core.timestamps import LAST_MS, format_time
from event_router.core.versions import newer

FIXTURES_STAY = (HealthCheck.function_scoped_fixture,)

numbers = st.integers(0, 2**64 - 1).map(str) | st.sampled_from(["0", "1", "9", "10"])
versions = st.builds(
    "{}:{}:{}-{}@{}".format,
    st.sampled_from("01"),
    numbers,
    numbers,
    numbers,
    st.sampled_from(["events:a", "events:b", "events:ä", "", "Events:a"]),
)
times = st.integers(10**12, 10**13).map(str) | numbers
timed = st.builds("{}:{}-{}@{}".format, times, numbers, st.sampled_from("01"), st.sampled_from(["s", "t"]))
versions = versions | timed | st.text(st.sampled_from("01:-@a"), max_size=6)


def evaluated(client: redis.Redis, name: str, expression: str, *arguments: object) -> Any:
    text = resources.files("event_router").joinpath("lua", f"{name}.lua").read_text("utf-8")
    return client.eval(f"{text}\nreturn {expression}", 0, *map(str, arguments))


@pytest.mark.parametrize(
    "moment", [0, 1, 999, 86_399_999, 951_782_400_000, 951_868_800_000, 4_107_542_399_999, LAST_MS]
)
def test_times_at_the_edges_of_days_and_leap_years(redis_client: redis.Redis, moment: int) -> None:
    assert evaluated(redis_client, "times", "time_text(tonumber(ARGV[1]))", moment) == format_time(moment)


@settings(deadline=None, suppress_health_check=FIXTURES_STAY)
@given(st.lists(st.integers(0, LAST_MS), min_size=1, max_size=50))
def test_times(redis_client: redis.Redis, moments: list[int]) -> None:
    program = (
        "(function() local t = {} for i = 1, #ARGV do t[i] = time_text(tonumber(ARGV[i])) end return t end)()"
    )
    assert evaluated(redis_client, "times", program, *moments) == [format_time(ms) for ms in moments]


@pytest.mark.once
@settings(deadline=None, suppress_health_check=FIXTURES_STAY, max_examples=200)
@given(versions, versions)
def test_versions(redis_client: redis.Redis, a: str, b: str) -> None:
    found = evaluated(redis_client, "versions", "newer_version(ARGV[1], ARGV[2])", a, b)
    assert bool(found) == newer(a, b)
