"""The commit script against the model: whatever is committed, nothing in part and nothing twice."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from event_router.core.effects import StatusChange
from event_router.core.entry_id import parse_id
from event_router.core.model import StateModel
from event_router.core.outcome import Answer, Settlement
from tests.environment.servers import Server
from tests.integration.commit_bench import CommitBench
from tests.integration.commit_cases import (
    ENTRY_IDS,
    MANY_IDS,
    NARROW,
    NEVER_DELIVERED,
    STREAMS,
    WIDE,
    Case,
    batches,
    initial_keys,
    numbers,
)
from tests.integration.presence_bench import (
    LOG,
    PREFIX,
    Change,
    PresenceBench,
    Stored,
    expected,
    status_in,
)

PRESENCE_KEYS = (LOG, *(f"{PREFIX}{name}" for name in ("connections", "users", "names", "due", "seen")))
TTL_TOLERANCE_MS = 60_000


@pytest.fixture
def bench(server: Server) -> Iterator[CommitBench]:
    with CommitBench(server) as bench:
        yield bench


Initial = dict[str, tuple[str, Any]]
Rounds = list[tuple[list[Case], bool]]
"""Batches, and whether each is sent again."""

many = settings(
    max_examples=150,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many
@given(
    initial=initial_keys(WIDE),
    ttl_ms=st.none() | st.just(600_000),
    rounds=st.lists(
        st.tuples(batches(WIDE, (*ENTRY_IDS, NEVER_DELIVERED)), st.booleans()), min_size=1, max_size=3
    ),
)
def test_any_commits_leave_what_the_model_says(
    bench: CommitBench, initial: Initial, ttl_ms: int | None, rounds: Rounds
) -> None:
    check(bench, initial, ttl_ms, rounds)


@many
@given(
    initial=initial_keys(NARROW),
    ttl_ms=st.none() | st.just(600_000),
    rounds=st.lists(st.tuples(batches(NARROW, MANY_IDS), st.just(False)), min_size=1, max_size=2),
)
def test_commits_that_meet_on_one_key_leave_what_the_model_says(
    bench: CommitBench, initial: Initial, ttl_ms: int | None, rounds: Rounds
) -> None:
    check(bench, initial, ttl_ms, rounds)


@many
@given(
    stored=st.none() | numbers,
    amounts=st.lists(numbers, min_size=1, max_size=len(MANY_IDS)),
)
def test_any_increments_are_exact_or_refused(
    bench: CommitBench, stored: int | None, amounts: list[int]
) -> None:
    initial: Initial = {} if stored is None else {"k": ("hash", {"n": str(stored)})}
    batch = [
        Case(STREAMS[0], entry_id, ([("increment", "k", "n", amount)], []), [], None)
        for entry_id, amount in zip(MANY_IDS, amounts, strict=False)
    ]
    check(bench, initial, None, [(batch, True)])


def check(bench: CommitBench, initial: Initial, ttl_ms: int | None, rounds: Rounds) -> None:
    """Commit each batch, and again where it says so; server and model must be the same throughout."""
    bench.client.flushall()
    model = bench.load(initial, ttl_ms)
    for stream in STREAMS:
        bench.deliver(stream, *MANY_IDS)
        model.pending[stream] = set(MANY_IDS)
    now_ms, announced = int(time.time() * 1000), list[tuple[str, str, str]]()
    for batch, resent in rounds:
        before = list(model.presence)
        settlements, answers = _foreseen(model, batch, now_ms)
        assert [*map(_named, bench.send(settlements))] == [*map(_named, answers)]
        _assert_same(bench, model)
        after = list(model.presence)
        announced += _changed(before, after, now_ms)
        _assert_present(bench, model, announced, now_ms)
        _assert_checkpoints(bench, model, settlements)
        if resent:
            assert bench.send(settlements) == model.commit_batch(settlements)
            _assert_same(bench, model)
            announced += _changed(after, model.presence, now_ms)
            _assert_present(bench, model, announced, now_ms)


def _foreseen(model: StateModel, batch: Sequence[Case], now_ms: int) -> tuple[list[Settlement], list[Answer]]:
    """Commit a batch to the model, where each up-to-date read sees what those before it left."""
    settlements, answers = [], []
    for case in batch:
        settlement = case.settlement(model.hashes, now_ms)
        settlements.append(settlement)
        answers.append(model.commit(settlement))
    return settlements, answers


def _named(answer: Answer) -> Answer:
    """Return an answer that names the key only: which of its wrong fields is named first is open."""
    named = re.sub(r"(?s)^field .* of key ('.*?') (holds|would).*", r"\1", answer.reason)
    return Answer(answer.verdict, named)


def _assert_same(bench: CommitBench, model: StateModel) -> None:
    found = bench.model(but=(*STREAMS, *PRESENCE_KEYS))
    assert found.hashes == model.hashes
    assert found.streams == model.streams
    assert found.others == model.others
    assert found.ttl_ms.keys() == model.ttl_ms.keys()
    for key, ttl_ms in model.ttl_ms.items():
        assert ttl_ms - TTL_TOLERANCE_MS < found.ttl_ms[key] <= ttl_ms, key
    for stream in STREAMS:
        assert bench.pending(stream) == model.pending[stream]


def _assert_checkpoints(bench: CommitBench, model: StateModel, settlements: list[Settlement]) -> None:
    for stream in {settlement.stream for settlement in settlements}:
        pending = model.pending[stream]
        if pending:
            assert bench.checkpoint(stream) == f"({min(pending, key=parse_id)}"


def _present(changes: Sequence[StatusChange], now_ms: int) -> Stored:
    """Return what the server shall keep of presence."""
    return expected((Change(user, of or None, status, int(at)) for user, of, status, at in changes), now_ms)


def _changed(
    before: Sequence[StatusChange], after: Sequence[StatusChange], now_ms: int
) -> list[tuple[str, str, str]]:
    """Return user, status before and after of those whose status a batch changed, as announced."""
    was, becomes = _present(before, now_ms), _present(after, now_ms)
    users = dict.fromkeys(change[0] for change in after[len(before) :])
    told = [(user, status_in(was, user), status_in(becomes, user)) for user in users]
    return [one for one in told if one[1] != one[2]]


def _assert_present(
    bench: CommitBench, model: StateModel, announced: list[tuple[str, str, str]], now_ms: int
) -> None:
    assert PresenceBench(bench.text_client).stored() == _present(model.presence, now_ms)
    messages = [json.loads(entry[5]) for entry in bench.entries(LOG)]
    assert [(found["user_id"], found["previous"], found["status"]) for found in messages] == announced
