"""What the domains of long-running jobs have in common: the job's state, step by step."""

from __future__ import annotations

import msgspec

from event_router import (
    Event,
    EventHandler,
    Identifier,
    JsonText,
    Percent,
    Sequence,
    StateTransaction,
    Text,
    ends_job,
    on,
)


class Progress(msgspec.Struct):
    """A step of a job. Steps may arrive in any order; the greatest `seq` is the newest."""

    job_id: Identifier
    stage: Text
    status: Text
    seq: Sequence
    progress: Percent | None = None
    message: Text | None = None
    result: JsonText | None = None
    user_id: Identifier | None = None


class JobEventHandler(EventHandler):
    """Takes the steps of a domain's jobs."""

    @on("progress")
    async def progress(self, event: Event[Progress], state: StateTransaction) -> None:
        """Record and publish the step, unless a newer one is recorded."""
        step = event.data
        state.job(step.job_id).step(
            stage=step.stage,
            status=step.status,
            seq=step.seq,
            progress=step.progress,
            message=step.message,
            result=step.result,
            terminal=ends_job(step.status),
        )


def finish(state: StateTransaction, job_id: str, seq: int, result: str | None = None) -> None:
    """Record and publish that a job is done."""
    state.job(job_id).step(
        stage="complete", status="done", seq=seq, progress=100, result=result, terminal=True
    )
