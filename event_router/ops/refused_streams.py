"""What Prometheus is told of streams that Redis refuses or denies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from event_router.ops.metrics import flags


class RefusedStreams(Collector):
    """A gauge for each stream.

    Args:
        refused: the streams that are in trouble now.
    """

    def __init__(self, streams: Sequence[str], refused: Callable[[], Collection[str]]) -> None:
        self._streams = streams
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """Render the gauge."""
        refused = self._refused()
        yield flags(
            "stream_refused",
            "Whether Redis refuses or denies the router something on the stream.",
            "stream",
            {stream: stream in refused for stream in self._streams},
        )
