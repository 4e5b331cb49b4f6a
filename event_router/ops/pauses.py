"""What the log and Prometheus are told of paused streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from event_router.core.pause import Pause
from event_router.core.timestamps import LAST_MS, format_time
from event_router.ops.metrics import flags
from event_router.runtime.observer import Observer


class PauseReports(Observer, Collector):
    """A line in the log when a stream is paused and when it goes on, and a gauge meanwhile."""

    def __init__(self, streams: Sequence[str]) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("event_router")
        self._paused = dict.fromkeys(streams, False)

    def paused(self, pause: Pause) -> None:
        """Say who paused a stream, why, and until when."""
        self._paused[pause.stream] = True
        self._log.warning(
            "stream_paused",
            stream=pause.stream,
            reason=pause.reason,
            by=pause.by,
            until=ends(pause),
            remedy=f"event-router resume {pause.stream}",
        )

    def resumed(self, stream: str) -> None:
        """Say that a stream goes on."""
        self._paused[stream] = False
        self._log.warning("stream_resumed", stream=stream)

    def collect(self) -> Iterator[Metric]:
        """Render the gauge."""
        yield flags("stream_paused", "Whether an operator has paused the stream.", "stream", self._paused)


def ends(pause: Pause) -> str:
    """Return when a pause ends, for people."""
    if pause.until_ms is None or not 0 <= pause.until_ms <= LAST_MS:
        return "resumed"
    return format_time(pause.until_ms)
