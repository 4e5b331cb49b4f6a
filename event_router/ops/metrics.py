"""Prometheus metrics of the stream path, kept in plain numbers and rendered when scraped.

Counting one event costs a list index and an addition: prometheus_client's own counters take a lock
an event. Labels are bounded: streams of the settings, registered event types or `other`.
"""

from __future__ import annotations

import platform
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from event_router.core.outcome import REASONS
from event_router.runtime.connectivity import Clock
from event_router.runtime.delivery import Delivery
from event_router.runtime.observer import Observer

PREFIX = "event_router_"
PROCESSING = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
)
AGE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
COMMIT = (0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
BATCH = (1, 2, 5, 10, 25, 50, 100, 200, 300, 400, 500)

Labels = tuple[str, ...]


class Histogram:
    """Counts of observations by upper bound, their number and sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: list[float]) -> None:
        """Count several observations; what is negative counts as 0 (clocks differ). Sorts the list."""
        values.sort()
        so_far = 0
        for index, bound in enumerate((*self.bounds, float("inf"))):
            up_to = bisect_right(values, bound)
            self.counts[index] += up_to - so_far
            so_far = up_to
        self.total += sum(values[bisect_left(values, 0.0) :])

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, cumulated count) as Prometheus wants them."""
        cumulated, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            cumulated += count
            found.append((bound, float(cumulated)))
        return found


def flags(name: str, documentation: str, label: str, values: Mapping[str, bool]) -> GaugeMetricFamily:
    """Return a gauge that is 1 for each value of the label that it is true of, and 0 for the others."""
    gauge = GaugeMetricFamily(f"{PREFIX}{name}", documentation, labels=(label,))
    for value, is_true in values.items():
        gauge.add_metric((value,), float(is_true))
    return gauge


class GroupFigures:
    """A stream's and its group's figures as last read; unknown ones are None and not exported.

    `pending_of` are the pending entries by consumer, as many consumers as whoever read them allows.
    """

    __slots__ = (
        "added",
        "consumers",
        "dead_letters",
        "lag",
        "lag_seconds",
        "length",
        "pending",
        "pending_of",
    )

    def __init__(
        self,
        lag: int | None,
        lag_seconds: float | None,
        pending: int,
        dead_letters: int,
        *,
        length: int | None = None,
        added: int | None = None,
        consumers: int | None = None,
        pending_of: Mapping[str, int] | None = None,
    ) -> None:
        self.lag = lag
        self.lag_seconds = lag_seconds
        self.pending = pending
        self.dead_letters = dead_letters
        self.length = length
        self.added = added
        self.consumers = consumers
        self.pending_of = pending_of or {}


class RouterMetrics(Observer, Collector):
    """Counts what the runtime reports, and renders it for Prometheus."""

    def __init__(
        self,
        *,
        clock: Clock,
        group: str,
        consumer: str,
        streams: Iterable[str],
        types: dict[str, Sequence[str]],
    ) -> None:
        self._clock = clock
        self._group = group
        self._consumer = consumer
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._processing: dict[Labels, Histogram] = {}
        self._age = {stream: Histogram(AGE) for stream in streams}
        self._commit = Histogram(COMMIT)
        self._batch = Histogram(BATCH)
        self.groups: dict[str, GroupFigures] = {}
        self.connected = {"streams": True}
        self.circuits: dict[str, bool] = {}
        self.clock_offset_ms = 0
        self.in_flight: Callable[[], int] = lambda: 0
        for stream, names in types.items():
            for name in names:
                self._counters["events_processed"][stream, name] = 0.0
                self._counters["events_failed"][stream, name] = 0.0
                self._counters["events_retried"][stream, name] = 0.0
                self._processing[stream, name] = Histogram(PROCESSING)
            for reason in REASONS:
                self._counters["events_dead_lettered"][stream, reason] = 0.0
            for counter in ("commit_conflicts", "events_duplicate", "entries_claimed", "entries_trimmed"):
                self._counters[counter][(stream,)] = 0.0

    def handled(self, delivery: Delivery, seconds: float) -> None:
        """Observe a handler's duration."""
        labels = (delivery.entry.stream, delivery.label)
        histogram = self._processing.get(labels)
        if histogram is None:
            histogram = self._processing[labels] = Histogram(PROCESSING)
        histogram.counts[bisect_left(PROCESSING, seconds)] += 1
        histogram.total += seconds

    def committed(self, batch: Sequence[Delivery], seconds: float) -> None:
        """Count processed events and observe their age."""
        self._commit.observe(seconds)
        self._batch.observe(len(batch))
        now = self._clock.wall_ms() + self.clock_offset_ms
        processed = self._counters["events_processed"]
        applied = [(delivery.entry.stream, delivery.label) for delivery in batch if delivery.letter is None]
        for labels, count in Counter(applied).items():
            processed[labels] += count
        ages: defaultdict[str, list[float]] = defaultdict(list)
        for delivery in batch:
            entry = delivery.entry
            ages[entry.stream].append((now - entry.time_ms) / 1000)
        for stream, seconds_old in ages.items():
            self._age[stream].observe_all(seconds_old)

    def failed(self, delivery: Delivery, error: str, retry_in_s: float | None) -> None:
        """Count a failed attempt."""
        self._counters["events_failed"][delivery.entry.stream, delivery.label] += 1

    def retried(self, delivery: Delivery) -> None:
        """Count a further attempt."""
        self._counters["events_retried"][delivery.entry.stream, delivery.label] += 1

    def duplicate(self, delivery: Delivery) -> None:
        """Count an entry somebody had settled."""
        self._counters["events_duplicate"][(delivery.entry.stream,)] += 1

    def conflict(self, delivery: Delivery) -> None:
        """Count a conflict."""
        self._counters["commit_conflicts"][(delivery.entry.stream,)] += 1

    def dead_lettered(self, delivery: Delivery, reason: str, error: str) -> None:
        """Count a dead letter."""
        self._counters["events_dead_lettered"][delivery.entry.stream, reason] += 1

    def claimed(self, stream: str, count: int) -> None:
        """Count claimed entries."""
        self._counters["entries_claimed"][(stream,)] += count

    def trimmed(self, stream: str, ids: Sequence[str]) -> None:
        """Count entries trimmed while pending."""
        self._counters["entries_trimmed"][(stream,)] += len(ids)

    def unread_trimmed(self, stream: str, count: int) -> None:
        """Count entries trimmed unread."""
        self._counters["entries_trimmed"][(stream,)] += count

    def outage_began(self, role: str, error: str) -> None:
        """Note that Redis does not answer."""
        self.connected["streams"] = False

    def outage_ended(self, seconds: float) -> None:
        """Note that Redis answers."""
        self.connected["streams"] = True

    def breaker_opened(self, domain: str, error: str) -> None:
        """Note an open breaker."""
        self.circuits[domain] = True

    def breaker_closed(self, domain: str, seconds: float) -> None:
        """Note a closed breaker."""
        self.circuits[domain] = False

    def collect(self) -> Iterator[Metric]:
        """Render everything."""
        by_type, by_stream = ("stream", "event_type"), ("stream",)
        yield self._counter("events_processed", "Events whose commit is confirmed.", by_type)
        yield self._counter("events_failed", "Handler attempts that failed.", by_type)
        yield self._counter("events_retried", "Further attempts that were made.", by_type)
        yield self._counter(
            "events_dead_lettered", "Entries moved to the dead letters.", ("stream", "reason")
        )
        yield self._counter("events_duplicate", "Entries that were settled already at commit.", by_stream)
        yield self._counter("commit_conflicts", "Handler runs whose reads were changed meanwhile.", by_stream)
        yield self._counter("entries_claimed", "Entries taken over from consumers that went away.", by_stream)
        yield self._counter("entries_trimmed", "Entries trimmed before they were settled.", by_stream)
        processing = HistogramMetricFamily(
            f"{PREFIX}processing_duration_seconds", "Time a handler ran.", labels=by_type
        )
        for labels, histogram in self._processing.items():
            processing.add_metric(labels, histogram.buckets(), histogram.total)
        yield processing
        age = HistogramMetricFamily(
            f"{PREFIX}event_age_seconds", "Time from XADD to commit.", labels=by_stream
        )
        for stream, histogram in self._age.items():
            age.add_metric((stream,), histogram.buckets(), histogram.total)
        yield age
        yield _histogram(
            "commit_duration_seconds", "Time of a commit, waiting for Redis included.", self._commit
        )
        yield _histogram("commit_batch_events", "Events in a commit.", self._batch)
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        of_group = ("stream", "group")
        pending = GaugeMetricFamily(
            f"{PREFIX}pending_messages", "Delivered entries that are not settled.", labels=of_group
        )
        lag = GaugeMetricFamily(
            f"{PREFIX}consumer_lag",
            "Entries not yet delivered to the group; consumer is who reports.",
            labels=("stream", "group", "consumer"),
        )
        seconds = GaugeMetricFamily(
            f"{PREFIX}lag_seconds", "Age of the oldest unsettled entry.", labels=of_group
        )
        dead = GaugeMetricFamily(
            f"{PREFIX}dead_letters", "Entries in the dead-letter stream.", labels=("stream",)
        )
        for stream, figures in self.groups.items():
            pending.add_metric((stream, self._group), figures.pending)
            if figures.lag is not None:
                lag.add_metric((stream, self._group, self._consumer), figures.lag)
            if figures.lag_seconds is not None:
                seconds.add_metric((stream, self._group), figures.lag_seconds)
            dead.add_metric((stream,), figures.dead_letters)
        yield from (pending, lag, seconds, dead)
        yield from self._stream_figures()
        yield GaugeMetricFamily(
            f"{PREFIX}in_flight", "Events between read and commit.", value=self.in_flight()
        )
        yield flags("redis_connected", "Whether Redis answers.", "role", self.connected)
        yield flags(
            "circuit_open", "Whether reading of a domain pauses for an outage.", "domain", self.circuits
        )

    def _stream_figures(self) -> Iterator[Metric]:
        length = GaugeMetricFamily(f"{PREFIX}stream_length", "Entries in the stream.", labels=("stream",))
        added = CounterMetricFamily(
            f"{PREFIX}stream_entries_added", "Entries ever added to the stream.", labels=("stream",)
        )
        consumers = GaugeMetricFamily(
            f"{PREFIX}consumers", "Consumers the group knows, dead ones too.", labels=("stream", "group")
        )
        held = GaugeMetricFamily(
            f"{PREFIX}consumer_pending_messages",
            "Delivered entries that are not settled, by the consumer that holds them.",
            labels=("stream", "group", "consumer"),
        )
        for stream, figures in self.groups.items():
            if figures.length is not None:
                length.add_metric((stream,), figures.length)
            if figures.added is not None:
                added.add_metric((stream,), figures.added)
            if figures.consumers is not None:
                consumers.add_metric((stream, self._group), figures.consumers)
            for consumer, count in figures.pending_of.items():
                held.add_metric((stream, self._group, consumer), count)
        yield from (length, added, consumers, held)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Metric:
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=labels)
        for values, count in self._counters[name].items():
            family.add_metric(values, count)
        return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}{name}", text)
    family.add_metric((), histogram.buckets(), histogram.total)
    return family


class BuildInfo(Collector):
    """The version that runs."""

    def __init__(self, version: str) -> None:
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Render it."""
        labels = {"version": self._version, "python": platform.python_version()}
        family = InfoMetricFamily(f"{PREFIX}build", "The version that runs.")
        family.add_metric((), labels)
        yield family


def new_registry(version: str, *collectors: Collector) -> CollectorRegistry:
    """Return a registry with these collectors and those of the process."""
    registry = CollectorRegistry()
    for collector in (BuildInfo(version), *collectors):
        registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
