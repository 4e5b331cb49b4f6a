"""Questions to a job's user as events alone: asked, answered, expired, in any order, each once."""

from __future__ import annotations

from itertools import permutations

import pytest

from event_router.testing import Published, State, apply, event
from handlers.chat import ChatEventHandler

TIME, EXPIRY, TOO_LATE = "2026-11-03T10:00:00.000Z", "2026-11-03T10:10:00.000Z", "2026-11-03T10:10:00.001Z"
SCHEMA = '{"type":"string","enum":["yes","no"]}'
REQUEST, NEWEST, INTERACTION = "input:request:j:1", "input:request:j", "interaction:state:j"
CHANNEL = "sse:events:j"
RECORD = {
    "request_id": "j:1",
    "n": "1",
    "job_id": "j",
    "owner": "u",
    "status": "pending",
    "prompt": "Sure?",
    "schema": SCHEMA,
    "requested_at": TIME,
    "expires_at": EXPIRY,
    "expires_ms": "1793700600000",
}


def requested(**more: object) -> Published:
    fields: dict[str, object] = {"job_id": "j", "user_id": "u", "prompt": "Sure?", "schema": SCHEMA}
    fields |= {"timeout_s": 600, "timestamp": TIME}
    return event("chat", "input_requested", **fields | more)


def received(value: object = "yes", **more: object) -> Published:
    fields: dict[str, object] = {"job_id": "j", "user_id": "u", "value": value, "timestamp": TIME}
    return event("chat", "input_received", **fields | more)


def expired(**more: object) -> Published:
    fields: dict[str, object] = {"job_id": "j", "request_id": "j:1", "timestamp": EXPIRY}
    return event("chat", "input_expired", **fields | more)


def after(*events: Published, before: State | dict[str, dict[str, str]] | None = None) -> State:
    return apply(ChatEventHandler(), events, before)


def refusals(state: State) -> list[str]:
    return [f"{letter.reason}: {letter.error}" for letter in state.dead_letters]


class TestRequested:
    def test_writes_the_request_the_newest_and_what_the_job_waits_for(self) -> None:
        state = after(requested())
        assert dict(state[REQUEST]) == dict(state[NEWEST]) == RECORD
        assert dict(state[INTERACTION]) == {
            "request_id": "j:1",
            "n": "1",
            "owner": "u",
            "status": "pending",
            "updated_at": TIME,
        }
        for key in (REQUEST, NEWEST, INTERACTION):
            assert state.ttl_s(key) == 600 + 24 * 3600
        assert state.entries("event-router:input:opened") == [
            {"request_id": "j:1", "expires_ms": "1793700600000"}
        ]

    def test_is_published_to_the_job(self) -> None:
        assert after(requested()).messages(CHANNEL) == [
            {
                "type": "input_requested",
                "domain": "chat",
                "job_id": "j",
                "request_id": "j:1",
                "user_id": "u",
                "prompt": "Sure?",
                "schema": {"type": "string", "enum": ["yes", "no"]},
                "expires_at": EXPIRY,
                "timestamp": TIME,
            }
        ]

    def test_has_an_hour_and_takes_anything_unless_it_says_otherwise(self) -> None:
        state = after(event("chat", "input_requested", job_id="j", user_id="u", timestamp=TIME))
        assert state[REQUEST]["expires_at"] == "2026-11-03T11:00:00.000Z"
        assert (state[REQUEST]["prompt"], state[REQUEST]["schema"]) == ("", "")

    def test_the_next_one_has_the_next_number_and_is_the_newest(self) -> None:
        state = after(requested(), received(), requested(prompt="Really?"))
        assert state["input:request:j:2"]["prompt"] == state[NEWEST]["prompt"] == "Really?"
        assert (state[REQUEST]["status"], state[NEWEST]["status"]) == ("answered", "pending")
        assert "value" not in state[NEWEST]
        assert (state[INTERACTION]["request_id"], state[INTERACTION]["status"]) == ("j:2", "pending")

    def test_the_newest_has_the_greatest_number_in_every_order(self) -> None:
        events = [requested(request_id=f"j:{n}", prompt=f"{n}?") for n in (1, 2, 3)]
        for order in permutations(events):
            state = after(*order)
            assert (state[NEWEST]["n"], state[INTERACTION]["n"]) == ("3", "3")
            assert [state[f"input:request:j:{n}"]["prompt"] for n in (1, 2, 3)] == ["1?", "2?", "3?"]

    def test_a_number_that_is_taken_is_passed_over(self) -> None:
        kept = {"input:request:j:1": RECORD}  # the newest one's record had less time to live
        state = after(requested(prompt="Next?"), before=kept)
        assert state["input:request:j:1"]["prompt"] == "Sure?"
        assert state["input:request:j:2"]["prompt"] == "Next?"

    def test_put_again_under_its_id_it_is_asked_once(self) -> None:
        state = after(requested(request_id="j:1"), requested(request_id="j:1"))
        assert (len(state.messages(CHANNEL)), refusals(state)) == (1, [])

    def test_another_question_under_its_id_is_refused(self) -> None:
        state = after(requested(request_id="j:1"), requested(request_id="1", user_id="thief"))
        assert refusals(state) == [
            "rejected: request j:1 was put before, with another owner, prompt or schema"
        ]
        assert state[REQUEST]["owner"] == "u"

    @pytest.mark.parametrize(
        ("more", "problem"),
        [
            ({"user_id": None}, "invalid: field 'user_id' is missing"),
            ({"job_id": None}, "invalid: field 'job_id' is missing"),
            ({"timeout_s": 0}, "invalid: field 'timeout_s'"),
            ({"schema": "yes or no"}, "rejected: schema 'yes or no' is no JSON"),
            ({"schema": {"pattern": "a"}}, "rejected: schema.pattern is a keyword that is not supported"),
            ({"request_id": "k:1"}, "rejected: request 'k:1' is none of job 'j'"),
            ({"request_id": "j:0"}, "rejected: 'j:0' is no id of a request"),
            ({"job_id": "a:1"}, "rejected: job 'a:1' ends like the id of a request"),
        ],
    )
    def test_what_cannot_be_asked_is_a_dead_letter_that_names_it(
        self, more: dict[str, object], problem: str
    ) -> None:
        state = after(requested(**more))
        assert len(state) == 0
        (refusal,) = refusals(state)
        assert refusal.startswith(problem)


class TestReceived:
    def test_the_answer_of_who_was_asked_is_taken(self) -> None:
        state = after(requested(), received())
        answered = {"status": "answered", "value": "yes", "answered_at": TIME}
        assert dict(state[REQUEST]) == dict(state[NEWEST]) == RECORD | answered
        assert state[INTERACTION]["status"] == "answered"
        assert state.entries("event-router:input:settled") == [{"request_id": "j:1"}]
        assert state.messages(CHANNEL)[1] == {
            "type": "input_received",
            "domain": "chat",
            "job_id": "j",
            "request_id": "j:1",
            "user_id": "u",
            "value": "yes",
            "timestamp": TIME,
        }

    def test_an_older_request_is_answered_by_its_id(self) -> None:
        state = after(requested(), requested(), received(request_id="j:1"))
        assert (state[REQUEST]["status"], state["input:request:j:2"]["status"]) == ("answered", "pending")
        assert (state[NEWEST]["status"], state[INTERACTION]["status"]) == ("pending", "pending")

    @pytest.mark.parametrize(
        ("more", "problem"),
        [
            ({"user_id": "v"}, "request j:1 was put to another user than 'v'"),
            ({"value": "maybe"}, "request j:1: value must be one of ['yes', 'no'], not 'maybe'"),
            ({"value": None}, "request j:1: value must be of type string, not null"),
            ({"timestamp": TOO_LATE}, f"request j:1 expired at {EXPIRY}"),
        ],
    )
    def test_any_other_is_refused_and_the_request_waits(self, more: dict[str, object], problem: str) -> None:
        state = after(requested(), received(**more))
        assert refusals(state) == [f"rejected: {problem}"]
        assert dict(state[REQUEST]) == RECORD
        assert len(state.messages(CHANNEL)) == 1

    def test_the_first_answer_counts(self) -> None:
        state = after(requested(), received("no"), received("yes"))
        assert state[REQUEST]["value"] == "no"
        assert refusals(state) == ["rejected: request j:1 is answered already"]

    def test_the_same_answer_again_changes_nothing(self) -> None:
        state = after(requested(), received(), received())
        assert (refusals(state), len(state.messages(CHANNEL))) == ([], 2)

    @pytest.mark.parametrize(
        ("schema", "value", "meant"),
        [
            (None, "yes", "yes"),
            (None, "42", 42),
            (None, {"a": [1]}, {"a": [1]}),
            ({"type": "string"}, "42", "42"),
            ({"type": "integer"}, "42", 42),
            ({"type": "boolean"}, True, True),
        ],
    )
    def test_the_value_is_what_the_schema_makes_of_the_text(
        self, schema: object, value: object, meant: object
    ) -> None:
        state = after(requested(schema=schema), received(value))
        assert state.messages(CHANNEL)[1]["value"] == meant

    @pytest.mark.parametrize("request_id", ["j:1", None])
    def test_an_answer_that_overtakes_its_question_is_taken_with_it(self, request_id: str | None) -> None:
        answers = [received("no", request_id=request_id), received("maybe", user_id="v", request_id="j:1")]
        state = after(*answers, requested())
        assert state.ttl_s("event-router:input:early:j:1") == 3600
        assert (state[REQUEST]["status"], state[REQUEST]["value"]) == ("answered", "no")
        assert (state[NEWEST]["status"], state[INTERACTION]["status"]) == ("answered", "answered")
        assert [message["type"] for message in state.messages(CHANNEL)] == [
            "input_requested",
            "input_received",
        ]

    @pytest.mark.parametrize("more", [{"value": "maybe"}, {"timestamp": TOO_LATE}, {"user_id": "v"}])
    def test_one_that_would_not_count_does_not_by_coming_early(self, more: dict[str, object]) -> None:
        assert dict(after(received(**more), requested())[REQUEST]) == RECORD


class TestExpired:
    def test_ends_a_request_in_whose_time_nobody_answered(self) -> None:
        state = after(requested(), expired())
        assert {state[key]["status"] for key in (REQUEST, NEWEST, INTERACTION)} == {"expired"}
        assert state.messages(CHANNEL)[1]["type"] == "input_expired"
        assert state.entries("event-router:input:settled") == [{"request_id": "j:1"}]

    def test_happens_once(self) -> None:
        assert len(after(requested(), expired(), expired()).messages(CHANNEL)) == 2

    def test_comes_too_late_for_an_answered_one_and_an_answer_for_an_expired_one(self) -> None:
        assert after(requested(), received(), expired())[REQUEST]["status"] == "answered"
        state = after(requested(), expired(), received())
        assert state[REQUEST]["status"] == "expired"
        assert refusals(state) == [f"rejected: request j:1 expired at {EXPIRY}"]

    def test_is_refused_before_its_time(self) -> None:
        state = after(requested(), expired(timestamp=TIME))
        assert (state[REQUEST]["status"], refusals(state)) == (
            "pending",
            [f"rejected: request j:1 has time until {EXPIRY}"],
        )

    def test_of_an_unknown_request_changes_nothing(self) -> None:
        assert (dict(after(expired())), refusals(after(expired()))) == ({}, [])


class TestEventsOfAService:
    """What `HumanInput` changed already is announced by its event, once, and not changed again."""

    def test_a_question(self) -> None:
        before = {REQUEST: RECORD | {"announce_requested": "t1"}}
        state = after(
            requested(request_id="j:1", id="t1"), requested(request_id="j:1", id="t1"), before=before
        )
        assert dict(state[REQUEST]) == RECORD
        assert [message["type"] for message in state.messages(CHANNEL)] == ["input_requested"]

    def test_an_answer(self) -> None:
        record = RECORD | {"status": "answered", "value": "no", "answered_at": TIME}
        state = after(
            received("no", request_id="j:1", id="t2"), before={REQUEST: record | {"announce_received": "t2"}}
        )
        assert dict(state[REQUEST]) == record
        assert [message["value"] for message in state.messages(CHANNEL)] == ["no"]

    def test_an_expiry(self) -> None:
        record = RECORD | {"status": "expired"}
        state = after(expired(id="t3"), before={REQUEST: record | {"announce_expired": "t3"}})
        assert dict(state[REQUEST]) == record
        assert [message["type"] for message in state.messages(CHANNEL)] == ["input_expired"]

    @pytest.mark.parametrize("field", ["n", "expires_ms", "schema"])
    def test_a_record_that_is_damaged_is_a_dead_letter(self, field: str) -> None:
        damaged = RECORD | {field: "?"}
        state = after(received(), before={REQUEST: damaged, NEWEST: damaged})
        (refusal,) = refusals(state)
        assert refusal.startswith(f"invalid: field {field!r} of key 'input:request:j")
