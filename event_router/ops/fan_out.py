"""What relays do, for Prometheus and for the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from event_router.core.fan_out import UNKNOWN
from event_router.ops.logs import RateLimit
from event_router.ops.metrics import flags
from event_router.ops.pubsub_metrics import PubSubMetrics
from event_router.runtime.connectivity import Clock
from event_router.runtime.fan_out import FanOutObserver
from event_router.runtime.observer import Observer

LINES_A_SECOND = 2


class SharedConnected(Observer):
    """Tells the metrics of a role whose server is the router's own, so that the router tells its outages.

    Args:
        also_up: whether the role's own calls are answered, by which it may be down beside that.
    """

    def __init__(self, role: str, connected: dict[str, bool], also_up: Callable[[], bool]) -> None:
        self._role = role
        self._connected = connected
        self._also_up = also_up

    def outage_began(self, role: str, error: str) -> None:
        """Note that it is down."""
        self._connected[self._role] = False

    def outage_ended(self, seconds: float) -> None:
        """Note that it is up, unless its own calls say otherwise."""
        self._connected[self._role] = self._also_up()


class OutageReports(Observer):
    """Says once when relays wait for a Redis, and once when it answers again.

    Args:
        role: `streams`, from which they read, or `pubsub`, to which they publish.
        connected: told whether the role answers, for the metrics; None where somebody else tells it.
    """

    def __init__(self, role: str, connected: dict[str, bool] | None = None) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("event_router")
        self._role = role
        self._connected = {} if connected is None else connected
        self._connected[role] = True

    def outage_began(self, role: str, error: str) -> None:
        """One line when an outage begins."""
        self._connected[self._role] = False
        effect = "live messages wait in the fan-out log; commits go on"
        self._log.error("fan_out_unavailable", role=self._role, by=role, error=error, effect=effect)

    def outage_ended(self, seconds: float) -> None:
        """One line when it ends, with its length."""
        self._connected[self._role] = True
        self._log.warning("fan_out_available", role=self._role, outage_s=round(seconds, 3))


class FanOutReports(FanOutObserver, Collector):
    """Counts what relays publish and drop, and says when one begins, ends, fails or waits.

    Args:
        channel_label: from a channel to its template.
        types: the event types that may be a label.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        channel_label: Callable[[str], str],
        types: Iterable[str],
        outboxes: Iterable[str],
    ) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("event_router")
        self._label = channel_label
        self._metrics = PubSubMetrics(types)
        self._metrics.dropped(UNKNOWN, 0)
        self._leads = dict.fromkeys(outboxes, False)
        self._drops = RateLimit(clock, LINES_A_SECOND)
        self._trims = RateLimit(clock, LINES_A_SECOND)
        self._refusals = RateLimit(clock, LINES_A_SECOND)

    def message_published(self, channel: bytes, type: str, receivers: int) -> None:
        """Count a message, repetitions included."""
        self._metrics.published(self._label(channel.decode("utf-8", "replace")), type, receivers)

    def message_dropped(self, outbox: str, channel: bytes, why: str) -> None:
        """Count a message that cannot be published, and say why."""
        name = channel.decode("utf-8", "replace")
        self._metrics.dropped(self._label(name) if name else UNKNOWN, 1)
        left_out = self._drops.passes()
        if left_out is not None:
            self._log.error(
                "message_not_published", outbox=outbox, channel=name, reason=why, left_out=left_out
            )

    def trimmed_unpublished(self, outbox: str, count: int) -> None:
        """Count messages that were trimmed unread; nobody knows their channels."""
        self._metrics.dropped(UNKNOWN, count)
        left_out = self._trims.passes()
        if left_out is not None:
            self._log.error(
                "messages_trimmed_unpublished",
                outbox=outbox,
                messages=count,
                left_out=left_out,
                remedy="raise EVENT_ROUTER_OUTBOX_MAXLEN, or find what slows the fan-out",
            )

    def leads(self, outbox: str, token: int, *, outage: bool = False) -> None:
        """Note the lead."""
        self._leads[outbox] = True
        self._changes(outage)("relay_leads", outbox=outbox, token=token)

    def stands_by(self, outbox: str, reason: str, *, outage: bool = False) -> None:
        """Note its end."""
        self._leads[outbox] = False
        self._changes(outage)("relay_stands_by", outbox=outbox, reason=reason)

    def _changes(self, outage: bool) -> Callable[..., object]:
        """An outage has its own two lines: a change that it alone makes is no news."""
        return self._log.debug if outage else self._log.info

    def relay_failed(self, outbox: str, error: Exception) -> None:
        """Say what nobody expected, with its place."""
        self._log.error("relay_failed", outbox=outbox, error=str(error), exc_info=error)

    def refused(self, what: str, error: str) -> None:
        """Say what Redis refuses for good."""
        left_out = self._refusals.passes()
        if left_out is not None:
            self._log.error("redis_refused", what=what, error=error, left_out=left_out)

    def collect(self) -> Iterator[Metric]:
        """Render everything."""
        yield from self._metrics.collect()
        yield flags("relay_leads", "Whether this process publishes the fan-out log.", "outbox", self._leads)
