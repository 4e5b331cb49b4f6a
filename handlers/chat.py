"""Messages, their jobs and the users' feedback: `events:chat`."""

from __future__ import annotations

import msgspec

from event_router import Event, Identifier, Score, Sequence, StateTransaction, Text, on
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


class ChatEventHandler(JobEventHandler):
    """Counts messages and feedback, and keeps the state of the jobs that answer."""

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
