"""Scans, from their start to their result: `events:scan`."""

from __future__ import annotations

import msgspec

from event_router import Event, Identifier, JsonText, Sequence, StateTransaction, on
from handlers.jobs import JobEventHandler, finish


class Scan(msgspec.Struct):
    """A scan starts or is complete."""

    user_id: Identifier
    job_id: Identifier
    result: JsonText | None = None
    seq: Sequence = 0


class ScanEventHandler(JobEventHandler):
    """Keeps the state of scans and counts those that are complete."""

    domain = "scan"

    @on("scan_start")
    async def scan_start(self, event: Event[Scan], state: StateTransaction) -> None:
        """Record and publish that the scan runs."""
        scan = event.data
        state.job(scan.job_id).step(
            stage="start", status="running", seq=scan.seq, progress=0, result=scan.result
        )

    @on("scan_complete", aliases=("scan:complete",))
    async def scan_complete(self, event: Event[Scan], state: StateTransaction) -> None:
        """Count the scan, and end its job with the result."""
        scan = event.data
        state.statistics("user", scan.user_id).increment("scan_count")
        state.statistics("daily", event.day).increment("total_scans")
        finish(state, scan.job_id, scan.seq, scan.result)
