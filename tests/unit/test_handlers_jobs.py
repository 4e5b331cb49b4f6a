"""Jobs of both domains, messages, feedback and scans."""

from __future__ import annotations

from itertools import permutations

import pytest

from event_router import EventHandler
from event_router.testing import Published, State, apply, event
from handlers.chat import ChatEventHandler
from handlers.scan import ScanEventHandler

DAY = "stats:daily:2026-11-03"
TIME = "2026-11-03T10:00:00.000Z"
HANDLERS = (ChatEventHandler(), ScanEventHandler())


def sent(domain: str, kind: str, **fields: object) -> Published:
    return event(domain, kind, timestamp=TIME, **fields)


def step(seq: int, domain: str = "scan", status: str = "running", **more: object) -> Published:
    return sent(domain, "progress", job_id="j", stage=f"stage{seq}", status=status, seq=seq, **more)


def job(state: State, domain: str = "scan") -> dict[str, str]:
    """The job's state without its version."""
    return {name: value for name, value in state[f"{domain}:state:j"].items() if name != "version"}


@pytest.mark.parametrize("domain", ["chat", "scan"])
class TestProgress:
    def test_writes_every_field(self, domain: str) -> None:
        events = [step(1, domain, message="näher", result={"found": 2}, user_id="u", progress=30)]
        state = apply(HANDLERS, events)
        assert job(state, domain) == {
            "stage": "stage1",
            "status": "running",
            "progress": "30",
            "seq": "1",
            "message": "näher",
            "result": '{"found":2}',
            "updated_at": TIME,
        }
        assert state.ttl_s(f"{domain}:state:j") == 3600

    def test_what_a_step_leaves_out_is_empty(self, domain: str) -> None:
        state = apply(HANDLERS, [step(1, domain, message="m", progress=5), step(2, domain)])
        assert job(state, domain) == {
            "stage": "stage2",
            "status": "running",
            "progress": "",
            "seq": "2",
            "message": "",
            "result": "",
            "updated_at": TIME,
        }

    def test_the_greatest_seq_wins_in_every_order(self, domain: str) -> None:
        for order in permutations((1, 2, 3)):
            assert job(apply(HANDLERS, [step(n, domain) for n in order]), domain)["stage"] == "stage3"

    def test_of_equal_seqs_the_later_entry_wins(self, domain: str) -> None:
        early = event(
            domain, "progress", entry_id="1800000000000-9", job_id="j", stage="a", status="s", seq=5
        )
        late = event(
            domain, "progress", entry_id="1800000000000-10", job_id="j", stage="b", status="s", seq=5
        )
        for events in ([early, late], [late, early]):
            assert job(apply(HANDLERS, events), domain)["stage"] == "b"

    @pytest.mark.parametrize("status", ["done", "completed", "complete", "failed", "error", "cancelled"])
    def test_finished_is_absorbing(self, domain: str, status: str) -> None:
        state = apply(HANDLERS, [step(1, domain, status=status), step(9, domain)])
        assert job(state, domain)["status"] == status
        state = apply(HANDLERS, [step(9, domain), step(1, domain, status=status)])
        assert job(state, domain)["status"] == status

    @pytest.mark.parametrize("status", ["running", "Done", "finished", ""])
    def test_other_statuses_do_not_end_a_job(self, domain: str, status: str) -> None:
        assert job(apply(HANDLERS, [step(1, domain, status=status), step(2, domain)]), domain)["seq"] == "2"

    def test_of_two_ends_the_greater_seq_wins(self, domain: str) -> None:
        ends = [step(3, domain, status="failed"), step(2, domain, status="done")]
        for events in (ends, ends[::-1]):
            assert job(apply(HANDLERS, events), domain)["status"] == "failed"

    def test_a_step_is_published_unless_a_newer_one_was(self, domain: str) -> None:
        state = apply(HANDLERS, [step(1, domain, progress=10), step(3, domain, progress=30), step(2, domain)])
        messages = state.messages("sse:events:j")
        assert [message["seq"] for message in messages] == [1, 3]
        assert messages[0] == {
            "type": "progress",
            "domain": domain,
            "job_id": "j",
            "stage": "stage1",
            "status": "running",
            "progress": 10,
            "seq": 1,
            "timestamp": TIME,
        }

    @pytest.mark.parametrize("value", ["30", "0", "100", "99.5"])
    def test_numbers_stay_as_they_were_written(self, domain: str, value: str) -> None:
        assert job(apply(HANDLERS, [step(1, domain, progress=value)]), domain)["progress"] == value

    @pytest.mark.parametrize("name", ["job_id", "stage", "status", "seq"])
    def test_a_missing_field_is_named(self, domain: str, name: str) -> None:
        fields = {"job_id": "j", "stage": "s", "status": "s", "seq": 1}
        del fields[name]
        (letter,) = apply(HANDLERS, [sent(domain, "progress", **fields)]).dead_letters
        assert (letter.reason, letter.error) == ("invalid", f"field {name!r} is missing")

    @pytest.mark.parametrize(
        ("name", "value"), [("seq", -1), ("seq", 1.5), ("progress", 101), ("progress", -1)]
    )
    def test_a_number_out_of_range_is_named(self, domain: str, name: str, value: object) -> None:
        fields = {"job_id": "j", "stage": "s", "status": "s", "seq": 1, name: value}
        (letter,) = apply(HANDLERS, [sent(domain, "progress", **fields)]).dead_letters
        assert (letter.reason, f"field {name!r}" in letter.error) == ("invalid", True)


class TestChat:
    def apply(self, *events: Published) -> State:
        return apply(ChatEventHandler(), events)

    @pytest.mark.parametrize("kind", ["message_sent", "chat:message_sent", "chat:message"])
    def test_a_message_is_counted(self, kind: str) -> None:
        state = self.apply(sent("chat", kind, user_id="u", message_id="m", job_id="j"))
        assert dict(state) == {"stats:user:u": {"messages_sent": "1"}, DAY: {"messages_sent": "1"}}

    def test_an_answer_ends_its_job_and_is_counted(self) -> None:
        state = self.apply(
            step(7, "chat", progress=90), sent("chat", "message_complete", user_id="u", job_id="j")
        )
        assert job(state, "chat") == {
            "stage": "complete",
            "status": "done",
            "progress": "100",
            "seq": "0",
            "message": "",
            "result": "",
            "updated_at": TIME,
        }
        assert state["stats:user:u"] == {"message_count": "1"}
        assert state[DAY] == {"total_messages": "1"}
        assert [m["type"] for m in state.messages("sse:events:j")] == ["progress", "message_complete"]

    def test_feedback_adds_up(self) -> None:
        feedback = [sent("chat", "feedback", user_id="u", score=score, comment="ok") for score in (4, 5)]
        state = self.apply(*feedback)
        total = {"feedback_count": "2", "feedback_score_total": "9"}
        assert dict(state) == {"stats:user:u": total, DAY: total}

    @pytest.mark.parametrize("score", [0, 6, "many", 4.5, "", None])
    def test_a_score_is_1_to_5(self, score: object) -> None:
        (letter,) = self.apply(sent("chat", "feedback", user_id="u", score=score)).dead_letters
        assert (letter.reason, "'score'" in letter.error) == ("invalid", True)


class TestScan:
    def apply(self, *events: Published) -> State:
        return apply(ScanEventHandler(), events)

    def test_a_start(self) -> None:
        state = self.apply(sent("scan", "scan_start", user_id="u", job_id="j"))
        assert job(state) == {
            "stage": "start",
            "status": "running",
            "progress": "0",
            "seq": "0",
            "message": "",
            "result": "",
            "updated_at": TIME,
        }
        assert len(state) == 1, "nothing is counted"

    @pytest.mark.parametrize("kind", ["scan_complete", "scan:complete", "scan:scan_complete"])
    def test_an_end_is_counted(self, kind: str) -> None:
        state = self.apply(step(5), sent("scan", kind, user_id="u", job_id="j", result="found 3"))
        assert job(state)["status"] == "done"
        assert job(state)["result"] == "found 3"
        assert state["stats:user:u"] == {"scan_count": "1"}
        assert state[DAY] == {"total_scans": "1"}

    def test_every_end_is_counted_and_the_job_ends_once(self) -> None:
        ends = [sent("scan", "scan_complete", user_id="u", job_id="j", result=result) for result in "ab"]
        state = self.apply(*ends, step(9))
        assert state["stats:user:u"] == {"scan_count": "2"}
        assert job(state)["result"] == "b"

    def test_a_start_that_comes_late_changes_nothing(self) -> None:
        state = self.apply(step(1), sent("scan", "scan_start", user_id="u", job_id="j"))
        assert job(state)["stage"] == "stage1"
        assert len(state.messages("sse:events:j")) == 1


@pytest.mark.parametrize(
    ("handler", "kind", "missing"),
    [
        (ChatEventHandler, "message_sent", "user_id"),
        (ChatEventHandler, "message_complete", "user_id"),
        (ChatEventHandler, "feedback", "user_id"),
        (ScanEventHandler, "scan_start", "user_id"),
        (ScanEventHandler, "scan_complete", "user_id"),
    ],
)
def test_without_a_user_it_is_invalid(handler: type[EventHandler], kind: str, missing: str) -> None:
    (letter,) = apply(handler(), [event(handler.domain, kind)]).dead_letters
    assert (letter.reason, letter.error) == ("invalid", f"field {missing!r} is missing")
