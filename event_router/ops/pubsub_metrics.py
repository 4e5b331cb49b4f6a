"""Prometheus metrics of Pub/Sub: of the router's relay, and of services that publish or subscribe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from event_router.core.pubsub_observer import PubSubObserver
from event_router.ops.metrics import PREFIX, PROCESSING, Histogram, Labels

OTHER = "other"


class PubSubMetrics(PubSubObserver, Collector):
    """Counts what publishers and subscribers report; give one to each of a process as its observer.

        metrics = PubSubMetrics(types=("login", "progress"))
        prometheus_client.REGISTRY.register(metrics)
        subscriber = EventSubscriber(redis, observer=metrics)

    Args:
        types: the message types that are told apart; every other one is `other`.
    """

    def __init__(self, types: Iterable[str] = ()) -> None:
        self._types = frozenset(types)
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._processing: dict[Labels, Histogram] = {}
        self._receivers: dict[str, int] = {}
        self._subscribed: dict[str, int] = {}

    def published(self, channel: str, type: str, receivers: int) -> None:
        """Count a message, and keep how many received it."""
        self._counters["pubsub_messages"][channel, self._type(type)] += 1
        self._receivers[channel] = receivers

    def received(self, channel: str, type: str) -> None:
        """Count a message."""
        self._counters["pubsub_messages"][channel, self._type(type)] += 1

    def processed(self, channel: str, handler: str, seconds: float) -> None:
        """Observe a handler's duration."""
        histogram = self._processing.get((channel, handler))
        if histogram is None:
            histogram = self._processing[channel, handler] = Histogram(PROCESSING)
        histogram.observe(seconds)

    def handler_failed(self, channel: str, handler: str) -> None:
        """Count a failed run of a handler."""
        self._counters["pubsub_handler_failures"][channel, handler] += 1

    def dropped(self, channel: str, count: int) -> None:
        """Count messages that reached nobody."""
        self._counters["pubsub_dropped"][(channel,)] += count

    def undecodable(self, channel: str) -> None:
        """Count an undecodable message."""
        self._counters["pubsub_undecodable"][(channel,)] += 1

    def duplicate(self, channel: str) -> None:
        """Count a message that came again."""
        self._counters["pubsub_duplicates"][(channel,)] += 1

    def subscribed(self, channel: str, count: int) -> None:
        """Keep the number of subscriptions."""
        self._subscribed[channel] = count

    def outage_began(self, error: str) -> None:
        """Count a lost connection."""
        self._counters["pubsub_connections_lost"][()] += 1

    def collect(self) -> Iterator[Metric]:
        """Render everything."""
        channel = ("channel",)
        yield self._counter("pubsub_messages", "Messages published or received.", ("channel", "type"))
        yield self._counter("pubsub_dropped", "Messages that reached nobody.", channel)
        yield self._counter("pubsub_undecodable", "Messages that could not be decoded.", channel)
        yield self._counter("pubsub_duplicates", "Messages that came again and were left out.", channel)
        by_handler = ("channel", "handler")
        yield self._counter("pubsub_handler_failures", "Handlers that raised or took too long.", by_handler)
        yield self._counter("pubsub_connections_lost", "Connections that subscribers lost.", ())
        subscribers = GaugeMetricFamily(
            f"{PREFIX}pubsub_subscribers",
            "Subscriptions of this process; without any, who received the last message it published.",
            labels=channel,
        )
        for name, count in (self._receivers | self._subscribed).items():
            subscribers.add_metric((name,), count)
        yield subscribers
        processing = HistogramMetricFamily(
            f"{PREFIX}pubsub_processing_duration_seconds",
            "Time a handler ran for one message.",
            labels=by_handler,
        )
        for labels, histogram in self._processing.items():
            processing.add_metric(labels, histogram.buckets(), histogram.total)
        yield processing

    def _type(self, text: str) -> str:
        return text if text in self._types else OTHER

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Metric:
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=labels)
        for values, count in self._counters[name].items():
            family.add_metric(values, count)
        return family
