"""Where tracing takes hold of the stream path, and what stands there when nothing is traced."""

from __future__ import annotations

from typing import Protocol

from event_router.core.registry import HandlerRegistry
from event_router.runtime.observer import Observer
from event_router.runtime.ports import ReadPort


class Tracing(Protocol):
    """Wraps what is to be traced before the runtime is given it, so that the runtime knows nothing of it."""

    @property
    def observer(self) -> Observer:
        """Hears of commits and of what became of attempts."""

    def registry(self, registry: HandlerRegistry) -> HandlerRegistry:
        """Return the same handlers, each run of which is traced."""

    def reads(self, reads: ReadPort) -> ReadPort:
        """Return the same reads, traced."""

    async def close(self) -> None:
        """Send off what is waiting to be sent, within a bounded time."""


class NoTracing:
    """Traces nothing and wraps nothing: an event costs what it costs without tracing."""

    @property
    def observer(self) -> Observer:
        """An observer that no report is passed to."""
        return Observer()

    def registry(self, registry: HandlerRegistry) -> HandlerRegistry:
        """Return the handlers themselves."""
        return registry

    def reads(self, reads: ReadPort) -> ReadPort:
        """Return the reads themselves."""
        return reads

    async def close(self) -> None:
        """Do nothing."""
