"""What Prometheus is told of streams that Redis refuses or denies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


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
        gauge = GaugeMetricFamily(
            "event_router_stream_refused",
            "Whether Redis refuses or denies the router something on the stream.",
            labels=("stream",),
        )
        refused = self._refused()
        for stream in self._streams:
            gauge.add_metric((stream,), float(stream in refused))
        yield gauge
