"""A handler with a span of its own, that passes its trace on to what it emits."""

from __future__ import annotations

import msgspec
from opentelemetry import trace
from opentelemetry.propagate import inject

from event_router import Event, EventHandler, Identifier, Reject, StateTransaction, on


class Ride(msgspec.Struct):
    """A ride on a bike."""

    bike_id: Identifier


class RideHandler(EventHandler):
    """Counts rides, and has the bike checked."""

    domain = "rides"

    @on("ridden")
    async def ridden(self, event: Event[Ride], state: StateTransaction) -> None:
        """Count in a span, and pass the trace on."""
        with trace.get_tracer("rides").start_as_current_span("count the ride"):
            state.entity("bike", event.data.bike_id).increment("rides")
            carrier: dict[str, str] = {}
            inject(carrier)
            state.emit("events:rides", type="checked", bike_id=event.data.bike_id, **carrier)

    @on("checked")
    async def checked(self, event: Event[Ride], state: StateTransaction) -> None:
        """Count the check."""
        state.entity("bike", event.data.bike_id).increment("checks")

    @on("stolen")
    async def stolen(self, event: Event[Ride], state: StateTransaction) -> None:
        """Refuse."""
        raise Reject("stolen bikes are not counted")
