"""The log: structlog set up, and the observer that turns the runtime's reports into lines.

No line per event above debug; failures and dead letters are rate limited, with a count of what was
left out. Values are escaped by the renderers, so hostile types stay on their line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import structlog

from event_router.runtime.connectivity import Clock
from event_router.runtime.delivery import Delivery
from event_router.runtime.observer import Observer

LINES_A_SECOND = 10


def configure(level: str, log_format: str) -> None:
    """Set up logging to standard error: `console` or `json`; `auto` is console on a terminal."""
    if log_format == "auto":
        log_format = "console" if sys.stderr.isatty() else "json"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _order,
    ]
    if log_format == "json":
        renderers: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        renderers = [_escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    numeric = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries' own lines (aiohttp, asyncio) take the same form.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[*shared, _drop_record, *renderers], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=max(numeric, logging.WARNING), force=True)


def _order(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put first what every line has."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _drop_record(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(_, __, event)


def _escape(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Keep control characters of hostile input off the terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and name != "exception":
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event


class RateLimit:
    """Lets so many lines a second pass, and counts the others."""

    def __init__(self, clock: Clock, a_second: int = LINES_A_SECOND) -> None:
        self._clock = clock
        self._a_second = a_second
        self._second = 0
        self._passed = 0
        self._left_out = 0

    def passes(self) -> int | None:
        """Return None if the line must be left out, else how many were since the last that passed."""
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._passed = second, 0
        if self._passed >= self._a_second:
            self._left_out += 1
            return None
        self._passed += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class LogObserver(Observer):
    """Writes what the person on call wants to read."""

    def __init__(self, clock: Clock, consumer: str) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("event_router")
        self._consumer = consumer
        self._failures = RateLimit(clock)
        self._letters = RateLimit(clock)
        self._trims = RateLimit(clock, 2)
        self._refusals = RateLimit(clock, 2)
        self._unknown = RateLimit(clock, 2)

    def _about(self, delivery: Delivery, left_out: int) -> dict[str, Any]:
        entry = delivery.entry
        about: dict[str, Any] = {
            "stream": entry.stream,
            "entry_id": entry.id,
            "event_type": delivery.label,
            "consumer": self._consumer,
            "attempt": entry.deliveries,
        }
        return about | {"left_out": left_out} if left_out else about

    def joined(self, streams: Sequence[str]) -> None:
        """Say that events are taken from now on."""
        self._log.info("ready", streams=list(streams), consumer=self._consumer)

    def failed(self, delivery: Delivery, error: str, retry_in_s: float | None) -> None:
        """One WARNING a failed attempt."""
        left_out = self._failures.passes()
        if left_out is not None:
            about = self._about(delivery, left_out)
            if retry_in_s:
                about["retry_in_s"] = round(retry_in_s, 3)
            self._log.warning("attempt_failed", **about, reason=error)

    def dead_lettered(self, delivery: Delivery, reason: str, error: str) -> None:
        """One ERROR a dead letter."""
        left_out = self._letters.passes()
        if left_out is not None:
            self._log.error("dead_lettered", **self._about(delivery, left_out), reason=reason, error=error)

    def unknown_acknowledged(self, delivery: Delivery, error: str) -> None:
        """One WARNING an unknown type."""
        left_out = self._unknown.passes()
        if left_out is not None:
            self._log.warning("unknown_event_settled", **self._about(delivery, left_out), reason=error)

    def claimed(self, stream: str, count: int) -> None:
        """Say that entries were taken over."""
        self._log.info("entries_claimed", stream=stream, entries=count, consumer=self._consumer)

    def trimmed(self, stream: str, ids: Sequence[str]) -> None:
        """Name entries that were lost by trimming."""
        left_out = self._trims.passes()
        if left_out is not None:
            shown = list(ids[:10])
            self._log.error(
                "entries_trimmed_while_pending",
                stream=stream,
                entries=len(ids),
                entry_ids=shown,
                left_out=left_out,
                remedy="raise the producers' MAXLEN, or leave trimming to the router",
            )

    def unread_trimmed(self, stream: str, count: int) -> None:
        """Say that unread entries were lost by trimming."""
        self._log.error(
            "entries_trimmed_unread",
            stream=stream,
            entries=count,
            remedy="raise the producers' MAXLEN, or leave trimming to the router",
        )

    def outage_began(self, role: str, error: str) -> None:
        """One line when an outage begins."""
        self._log.error("redis_unavailable", role=role, error=error, effect="nothing is lost; trying again")

    def outage_ended(self, seconds: float) -> None:
        """One line when it ends, with its length."""
        self._log.warning("redis_available", outage_s=round(seconds, 3))

    def breaker_opened(self, domain: str, error: str) -> None:
        """Say why a domain pauses."""
        self._log.error("circuit_opened", domain=domain, error=error, effect="reading of the domain pauses")

    def breaker_closed(self, domain: str, seconds: float) -> None:
        """Say that a domain goes on."""
        self._log.warning("circuit_closed", domain=domain, open_s=round(seconds, 3))

    def group_created(self, stream: str, start: str, at_most: int, known: bool) -> None:
        """Report what the loss of a group may have cost."""
        self._log.error("group_recreated", stream=stream, behind=start, lost_or_counted_twice_at_most=at_most)

    def consumers_removed(self, stream: str, names: Sequence[str]) -> None:
        """Name removed consumers."""
        self._log.info("consumers_removed", stream=stream, consumers=list(names))

    def retained(self, stream: str, trimmed: int) -> None:
        """Say at debug what retention did."""
        self._log.debug("settled_entries_trimmed", stream=stream, entries=trimmed)

    def stream_refused(self, stream: str, error: str) -> None:
        """One ERROR when Redis begins to refuse something on a stream."""
        effect = "other streams are served; this one is tried again"
        self._log.error("stream_refused", stream=stream, error=error, effect=effect)

    def stream_accepted(self, stream: str) -> None:
        """One line when it refuses nothing there any more."""
        self._log.warning("stream_accepted", stream=stream)

    def refused(self, what: str, error: str) -> None:
        """Say what Redis refuses for good."""
        left_out = self._refusals.passes()
        if left_out is not None:
            self._log.error("redis_refused", what=what, error=error, left_out=left_out)
