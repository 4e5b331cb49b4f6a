"""Batches, resends, and what becomes of each answer."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import pytest

from event_router.core.errors import NoGroup, RedisDenied, RedisRefused
from event_router.core.event import Event
from event_router.core.outcome import Answer, Answers, DeadLetter, Verdict
from event_router.core.state import StateTransaction
from event_router.runtime.commit_queue import WORTH_A_SECOND
from tests.unit.runtime_assembled import MIN_IDLE_MS, Runtime
from tests.unit.runtime_fakes import AWAY, BIKES, CARS, Part, entry, entry_id, settled, until

BOTH = ("committer", "second_committer")
COMMITTED, SETTLED, CONFLICT = Verdict.COMMITTED, Verdict.SETTLED, Verdict.CONFLICT


def processed(runtime: Runtime) -> list[str]:
    """Ids of the entries reported as committed."""
    return [delivery.entry.id for batch, _ in runtime.reports.of("committed") for delivery in batch]


class TestBatches:
    async def test_what_became_ready_meanwhile_is_one_batch(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.gate.clear()
            runtime.accept(entry(0))
            await until(lambda: runtime.commits.batches)
            for number in range(1, 6):
                runtime.accept(entry(number, f"b{number}"))
                await settled(5)
            runtime.commits.gate.set()
            await until(lambda: not len(runtime.in_flight))
            assert [len(batch) for batch in runtime.commits.batches] == [1, 5]

    async def test_a_batch_is_bounded_by_weight(self) -> None:
        async with Runtime(max_events=10) as runtime:
            runtime.commits.weigh = lambda settlement: 4 if int(settlement.id[-3]) % 2 else 1
            runtime.accept(*(entry(number, f"b{number}") for number in range(12)))
            await until(lambda: not len(runtime.in_flight))
            weights = [[part.weight for part in batch] for batch in runtime.commits.packed]
            assert all(sum(batch) <= 10 for batch in weights)
            assert sum(map(len, weights)) == 12
            assert len(weights) < 6

    async def test_a_batch_is_no_longer_than_redis_can_take_in_a_moment(self) -> None:
        async with Runtime(max_events=200) as runtime:
            for blocked_s, number in ((0.016, 1), (0.016, 2), (0.001, 3)):
                runtime.commits.blocked_s = blocked_s
                runtime.commits.gate.clear()
                runtime.accept(entry(number * 1000, f"first{number}"))
                sent = len(runtime.commits.batches)
                await until(lambda sent=sent: len(runtime.commits.batches) > sent)  # type: ignore[misc]
                runtime.accept(*(entry(number * 1000 + n, f"b{number}-{n}") for n in range(1, 121)))
                await settled(50)
                runtime.commits.gate.set()
                await until(lambda: not len(runtime.in_flight))
            lengths = [len(batch) for batch in runtime.commits.batches]
            # 120 took 16 ms: the next are of 60. Those are said to take 16 ms, too: of 30, then of 15.
            assert lengths[:6] == [1, 120, 1, 60, 30, 15]
            third = lengths[lengths.index(1, 3) + 1 :]
            assert third == sorted(third[:-1]) + third[-1:], "it grows slowly once there is time"
            assert third[-2] > third[0]
            assert sum(lengths) == 3 * 121

    async def test_what_is_heavier_than_a_batch_goes_alone(self) -> None:
        async with Runtime(max_events=10) as runtime:
            runtime.commits.weigh = lambda settlement: 50
            runtime.accept(entry(1), entry(2, "b2"))
            await until(lambda: not len(runtime.in_flight))
            assert runtime.commits.batches == [[entry_id(1)], [entry_id(2)]]

    async def test_a_processed_event_leaves(self) -> None:
        async with Runtime() as runtime:
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert processed(runtime) == [entry_id(1)]
            assert runtime.in_flight.departures == 1
            assert not runtime.sequencer.views


class TestTwoAtOnce:
    async def test_much_that_is_ready_is_sent_before_the_last_batch_is_answered(self) -> None:
        async with Runtime(services=(*BOTH, "sequencer")) as runtime:
            runtime.commits.gate.clear()
            runtime.accept(entry(0))
            await until(lambda: runtime.commits.batches)
            runtime.accept(*(entry(number, f"b{number}") for number in range(1, WORTH_A_SECOND)))
            await settled(50)
            assert len(runtime.commits.batches) == 1, "not yet worth a commit of its own"
            runtime.accept(entry(WORTH_A_SECOND, "last"))
            await until(lambda: len(runtime.commits.batches) == 2)
            runtime.accept(*(entry(1_000 + number, f"c{number}") for number in range(WORTH_A_SECOND)))
            await settled(50)
            assert [len(batch) for batch in runtime.commits.batches] == [1, WORTH_A_SECOND]
            runtime.commits.gate.set()
            await until(lambda: not len(runtime.in_flight))
            assert sorted(processed(runtime)) == sorted(chain.from_iterable(runtime.commits.batches))
            assert len(processed(runtime)) == 1 + 2 * WORTH_A_SECOND

    async def test_what_is_left_when_one_is_answered_need_not_wait_for_the_other(self) -> None:
        async with Runtime(services=(*BOTH, "sequencer")) as runtime:
            runtime.commits.gate.clear()
            runtime.accept(entry(0))
            await until(lambda: runtime.commits.batches)
            runtime.accept(entry(1, "b1"))
            runtime.commits.gate.set()
            await until(lambda: not len(runtime.in_flight))
            assert [len(batch) for batch in runtime.commits.batches] == [1, 1]

    async def test_an_entry_committed_by_itself_does_not_wait(self) -> None:
        async with Runtime(services=(*BOTH, "sequencer")) as runtime:
            runtime.commits.steps = [[CONFLICT]] * 3
            runtime.accept(entry(0))
            await until(lambda: not len(runtime.in_flight))
            runtime.commits.steps = [[CONFLICT]] * 3
            held = len(runtime.commits.batches)
            runtime.accept(entry(1, "b1"))
            await until(lambda: len(runtime.commits.batches) == held + 4)
            assert processed(runtime) == [entry_id(0), entry_id(1)]

    async def test_what_is_sent_again_keeps_its_order(self) -> None:
        async with Runtime(services=(*BOTH, "sequencer")) as runtime:
            runtime.commits.gate.clear()
            runtime.commits.steps = [AWAY, AWAY, AWAY, NoGroup(BIKES), AWAY]
            runtime.accept(entry(0))
            await until(lambda: runtime.commits.batches)
            runtime.accept(*(entry(number, f"b{number}") for number in range(1, WORTH_A_SECOND + 1)))
            await until(lambda: len(runtime.commits.batches) == 2)
            runtime.commits.gate.set()
            await until(lambda: not len(runtime.in_flight))
            assert runtime.commits.sent == [b"0", b"1", b"0", b"0", b"0", b"0", b"1"]

    @pytest.mark.parametrize("error", [AWAY, NoGroup(BIKES)])
    async def test_none_is_begun_while_the_one_before_has_to_be_sent_again(self, error: Exception) -> None:
        async with Runtime(services=(*BOTH, "sequencer")) as runtime:
            runtime.commits.steps = [AWAY] * 1_000 if error is AWAY else [error]
            runtime.group_port.errors = [AWAY] * 1_000
            runtime.accept(entry(0))
            await until(lambda: runtime.connectivity.up is False)
            runtime.accept(*(entry(number, f"b{number}") for number in range(1, WORTH_A_SECOND + 1)))
            await settled(50)
            assert set(runtime.commits.sent) == {b"0"}
            runtime.commits.steps.clear()
            runtime.group_port.errors.clear()
            await until(lambda: not len(runtime.in_flight))
            assert runtime.commits.sent[-2:] == [b"0", b"1"]

    async def test_both_send_again_what_was_not_answered(self) -> None:
        async with Runtime(services=(*BOTH, "sequencer")) as runtime:
            runtime.commits.gate.clear()
            runtime.commits.steps = [AWAY, AWAY, AWAY]
            runtime.accept(entry(0))
            await until(lambda: runtime.commits.batches)
            runtime.accept(*(entry(number, f"b{number}") for number in range(1, WORTH_A_SECOND + 1)))
            await until(lambda: len(runtime.commits.batches) == 2)
            runtime.commits.gate.set()
            await until(lambda: not len(runtime.in_flight))
            assert len(processed(runtime)) == 1 + WORTH_A_SECOND
            assert len(runtime.reports.of("outage_began")) == len(runtime.reports.of("outage_ended")) == 1


class TestResending:
    async def test_a_commit_without_an_answer_is_sent_again_unchanged(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [AWAY, AWAY]
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert runtime.commits.sent == [b"0"] * 3
            assert processed(runtime) == [entry_id(1)]
            assert len(runtime.reports.of("outage_began")) == len(runtime.reports.of("outage_ended")) == 1

    async def test_settled_after_a_resend_was_us(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [AWAY, [SETTLED]]
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert processed(runtime) == [entry_id(1)]
            assert not runtime.reports.of("duplicate")

    async def test_settled_at_once_was_somebody_else(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [[SETTLED]]
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert not processed(runtime)
            assert len(runtime.reports.of("duplicate")) == 1

    async def test_a_missing_group_is_made_anew_and_the_commit_sent_again(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [NoGroup(BIKES)]
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert BIKES in runtime.group_port.ensured
            assert runtime.commits.sent == [b"0", b"0"]
            assert processed(runtime) == [entry_id(1)]

    async def test_settled_after_a_missing_group_was_not_us(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [NoGroup(BIKES), [SETTLED]]
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert not processed(runtime)


class TestConflicts:
    async def test_only_that_handler_runs_again(self) -> None:
        runs: list[str] = []

        async def handle(event: Event[Any], state: StateTransaction) -> None:
            runs.append(event.id)

        async with Runtime(handle) as runtime:
            runtime.commits.steps = [[COMMITTED, CONFLICT]]
            runtime.accept(entry(1), entry(2, "b2"))
            await until(lambda: not len(runtime.in_flight))
            assert runs == [entry_id(1), entry_id(2), entry_id(2)]
            assert processed(runtime) == [entry_id(1), entry_id(2)]
            assert runtime.claims.state(2)[2] == 1  # no attempt was used up
            assert not runtime.reports.of("failed")

    async def test_the_second_run_reads_what_is_stored_now(self) -> None:
        seen: list[str | None] = []

        async def handle(event: Event[Any], state: StateTransaction) -> None:
            seen.append(await state.entity("bike", "b1").get("rides"))

        async with Runtime(handle) as runtime:
            runtime.state.values["state:bike:b1", "rides"] = "1"

            def changed_by_another_pod(part: Part) -> Verdict:
                if runtime.state.values["state:bike:b1", "rides"] == "2":
                    return COMMITTED
                runtime.state.values["state:bike:b1", "rides"] = "2"
                return CONFLICT

            runtime.commits.answer = changed_by_another_pod
            runtime.accept(entry(1))
            await until(lambda: not len(runtime.in_flight))
            assert seen == ["1", "2"]

    async def test_after_three_it_is_committed_apart(self) -> None:
        async with Runtime() as runtime:
            hot = entry_id(1)
            answered: list[str] = []

            def answer(part: Part) -> Verdict:
                answered.append(part.settlement.id)
                return CONFLICT if part.settlement.id == hot and answered.count(hot) <= 3 else COMMITTED

            runtime.commits.answer = answer
            runtime.accept(entry(1), entry(2, "b2"))
            for number in range(3, 40):
                runtime.accept(entry(number, f"b{number}"))
                await settled(2)
            await until(lambda: not len(runtime.in_flight))
            *_, last = [batch for batch in runtime.commits.batches if hot in batch]
            assert last == [hot]
            assert len(runtime.reports.of("conflict")) == 3

    async def test_several_such_are_committed_one_by_one(self) -> None:
        async with Runtime(services=("sequencer",)) as runtime:
            for delivery in runtime.accept(entry(1), entry(2, "b2")):
                delivery.conflicts = 3
            await settled()
            runtime.committer.start()
            await until(lambda: not len(runtime.in_flight))
            assert runtime.commits.batches == [[entry_id(1)], [entry_id(2)]]


class TestInvalid:
    async def test_it_becomes_a_dead_letter_and_its_neighbours_are_applied(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [[COMMITTED, Answer(Verdict.INVALID, "rides holds no integer")]]
            runtime.accept(entry(1), entry(2, "b2"))
            await until(lambda: not len(runtime.in_flight))
            letter = runtime.commits.packed[1][0].work
            assert isinstance(letter, DeadLetter)
            assert (letter.reason, letter.error) == ("invalid", "rides holds no integer")
            assert runtime.reports.letters() == [(entry_id(2), "invalid")]

    async def test_a_dead_letter_that_cannot_be_written_is_postponed(self) -> None:
        async with Runtime() as runtime:
            refused = Answer(Verdict.INVALID, "the dead letters are a string")
            runtime.commits.steps = [[refused]]
            (delivery,) = runtime.accept(entry(1, ""))
            await until(lambda: not len(runtime.in_flight))
            assert delivery.key in runtime.failures
            assert runtime.failures.next_due() == runtime.time.now + MIN_IDLE_MS / 1000
            assert runtime.failures.leases == {delivery.key: (0, 0)}  # the attempt is given back
            assert len(runtime.reports.of("refused")) == 1
            assert not runtime.reports.letters()

    async def test_a_script_that_broke_half_way_is_reported(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [[Answer(Verdict.BROKEN, "out of memory"), COMMITTED]]
            runtime.accept(entry(1), entry(2, "b2"))
            await until(lambda: not len(runtime.in_flight))
            assert processed(runtime) == [entry_id(2)]
            assert runtime.reports.of("refused")[0][1] == "out of memory"


class TestRefusals:
    async def test_a_refused_batch_is_halved_until_its_culprit_is_alone(self) -> None:
        async with Runtime() as runtime:
            send, bad = runtime.commits.send, entry_id(5)

            async def refusing(packed: bytes) -> Answers:
                ids = [part.settlement.id for part in runtime.commits.packed[int(packed)]]
                if bad in ids:
                    raise RedisRefused("too many arguments")
                return await send(packed)

            runtime.commits.send = refusing  # type: ignore[method-assign]
            runtime.accept(*(entry(number, f"b{number}") for number in range(16)))
            await until(lambda: not len(runtime.in_flight))
            assert sorted(processed(runtime)) == sorted({entry_id(number) for number in range(16)} - {bad})
            assert (BIKES, bad) in runtime.failures
            assert len(runtime.reports.of("refused")) == 1

    async def test_a_denied_batch_is_offered_again_after_a_pause(self) -> None:
        async with Runtime() as runtime:
            denied = Answer(Verdict.DENIED, "run 'hset' on state:*")
            runtime.commits.steps = [[denied, denied], [denied, denied]]
            runtime.accept(entry(1), entry(2, "b2"))
            await until(lambda: not len(runtime.in_flight))
            assert runtime.commits.batches == [[entry_id(1), entry_id(2)]] * 3
            assert sorted(processed(runtime)) == [entry_id(1), entry_id(2)]
            ((_, error),) = runtime.reports.of("outage_began")
            assert "NOPERM" in error
            assert not runtime.reports.of("failed")

    async def test_a_refusal_is_an_answer(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [AWAY, RedisRefused("script error")]
            runtime.accept(entry(1))
            await until(lambda: runtime.reports.of("refused"))
            await settled()
            assert runtime.connectivity.up

    async def test_what_is_denied_holds_up_nothing_else(self) -> None:
        bad = entry_id(7)
        async with Runtime(services=("sequencer", "committer", "overdue")) as runtime:
            runtime.commits.answer = lambda part: (
                Answer(Verdict.DENIED, "run 'hset'") if part.settlement.id == bad else COMMITTED
            )
            runtime.accept(entry(7, "b7"))
            await until(lambda: runtime.reports.of("outage_began"))
            runtime.accept(*(entry(number, f"b{number}") for number in range(20, 40)))
            await until(lambda: len(runtime.in_flight) == 1)
            assert len(processed(runtime)) == 20
            assert not runtime.connectivity.up
            assert runtime.connectivity.reachable, "handlers run out of time as ever"
            tried = sum(bad in batch for batch in runtime.commits.batches)
            await until(lambda: sum(bad in batch for batch in runtime.commits.batches) > tried + 2)
            assert len(runtime.reports.of("outage_began")) == 1
            runtime.commits.answer = lambda part: COMMITTED
            await until(lambda: not len(runtime.in_flight))
            assert processed(runtime)[-1] == bad
            assert len(runtime.reports.of("outage_ended")) == 1
            assert sum(bad in batch for batch in runtime.commits.batches) == len(runtime.commits.batches) - 1

    @pytest.mark.parametrize("error", [RedisDenied("NOPERM no access to a key"), NoGroup(CARS)])
    async def test_a_stream_that_has_the_whole_batch_denied_holds_up_no_other(self, error: Exception) -> None:
        async with Runtime(services=("sequencer", "committer")) as runtime:
            send, allowed = runtime.commits.send, False

            async def denying(packed: bytes) -> Answers:
                streams = {part.settlement.stream for part in runtime.commits.packed[int(packed)]}
                if CARS in streams and not allowed:
                    raise copy.copy(error)
                return await send(packed)

            runtime.commits.send = denying  # type: ignore[method-assign]
            runtime.accept(entry(1), entry(2, "c", stream=CARS), entry(3, "b3"))
            await until(lambda: len(runtime.in_flight) == 1)
            runtime.accept(entry(4, "b4"))
            await until(lambda: len(runtime.in_flight) == 1)
            assert processed(runtime) == [entry_id(1), entry_id(3), entry_id(4)]
            assert not runtime.connectivity.up
            assert runtime.connectivity.reachable
            allowed = True
            await until(lambda: not len(runtime.in_flight))
            assert processed(runtime)[-1] == entry_id(2)
            assert runtime.connectivity.up

    async def test_what_was_denied_and_is_refused_then_ends_the_wait(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [[Answer(Verdict.DENIED, "run 'hset'")], RedisRefused("no")]
            runtime.accept(entry(1))
            await until(lambda: (BIKES, entry_id(1)) in runtime.failures)
            assert runtime.connectivity.up

    async def test_while_denied_the_router_is_not_connected(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [[Answer(Verdict.DENIED, "run 'hset'")]]
            runtime.accept(entry(1))
            await until(lambda: runtime.reports.of("outage_began"))
            assert not runtime.connectivity.up
            await until(lambda: not len(runtime.in_flight))
            assert runtime.connectivity.up

    async def test_settled_in_half_of_a_resent_batch_was_us(self) -> None:
        async with Runtime() as runtime:
            runtime.commits.steps = [AWAY, RedisRefused("no"), [SETTLED], [SETTLED]]
            runtime.accept(entry(1), entry(2, "b2"))
            await until(lambda: not len(runtime.in_flight))
            assert sorted(processed(runtime)) == [entry_id(1), entry_id(2)]
