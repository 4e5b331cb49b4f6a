"""Messages, their jobs and the users' feedback: `events:chat`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from event_router import Event, Identifier, JsonText, Score, Sequence, StateTransaction, Text, on
from handlers.jobs import JobEventHandler, finish


class MessageSent(msgspec.Struct):
    """A user sent a message."""

    user_id: Identifier
    job_id: Identifier | None = None
    message_id: Identifier | None = None


class MessageComplete(msgspec.Struct):
    """The answer to a message is complete."""

    user_id: Identifier
    job_id: Identifier
    seq: Sequence = 0


class Feedback(msgspec.Struct):
    """A user's judgement of an answer, 1 to 5."""

    user_id: Identifier
    score: Score
    job_id: Identifier | None = None
    comment: Text | None = None


class InputRequested(msgspec.Struct):
    """A job asks its user for something, and takes the answer for so many seconds."""

    job_id: Identifier
    user_id: Identifier
    prompt: Text = ""
    schema: JsonText | None = None
    request_id: Identifier | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=365 * 24 * 3600)] = 3600.0


class InputReceived(msgspec.Struct):
    """A user's answer, to a request or else to the job's newest."""

    job_id: Identifier
    user_id: Identifier
    value: JsonText | None = None
    request_id: Identifier | None = None


class InputExpired(msgspec.Struct):
    """Nobody answered in time."""

    job_id: Identifier
    request_id: Identifier
    user_id: Identifier | None = None


class ChatEventHandler(JobEventHandler):
    """Counts messages and feedback, keeps the state of jobs and what they ask their users."""

    domain = "chat"

    @on("message_sent", aliases=("chat:message",))
    async def message_sent(self, event: Event[MessageSent], state: StateTransaction) -> None:
        """Count the message for its user and its day."""
        state.statistics("user", event.data.user_id).increment("messages_sent")
        state.statistics("daily", event.day).increment("messages_sent")

    @on("message_complete")
    async def message_complete(self, event: Event[MessageComplete], state: StateTransaction) -> None:
        """Count the answer, and end its job."""
        done = event.data
        state.statistics("user", done.user_id).increment("message_count")
        state.statistics("daily", event.day).increment("total_messages")
        finish(state, done.job_id, done.seq)

    @on("feedback")
    async def feedback(self, event: Event[Feedback], state: StateTransaction) -> None:
        """Count the score for its user and its day."""
        given = event.data
        for counters in (state.statistics("user", given.user_id), state.statistics("daily", event.day)):
            counters.increment("feedback_count")
            counters.increment("feedback_score_total", given.score)

    @on("input_requested")
    async def input_requested(self, event: Event[InputRequested], state: StateTransaction) -> None:
        """Put the question to the user, once."""
        asked = event.data
        await state.human_input(asked.job_id).requested(
            owner=asked.user_id,
            prompt=asked.prompt,
            schema=asked.schema,
            timeout_s=asked.timeout_s,
            request_id=asked.request_id,
        )

    @on("input_received")
    async def input_received(self, event: Event[InputReceived], state: StateTransaction) -> None:
        """Take the answer of the user who was asked."""
        said = event.data
        await state.human_input(said.job_id).received(
            user=said.user_id, value=said.value, request_id=said.request_id
        )

    @on("input_expired")
    async def input_expired(self, event: Event[InputExpired], state: StateTransaction) -> None:
        """End a question that nobody answered."""
        over = event.data
        await state.human_input(over.job_id).expired(request_id=over.request_id)
