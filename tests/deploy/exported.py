"""The names of the samples that routers export, asked of the program itself."""

from __future__ import annotations

import re

from event_router.ops.metrics import GroupFigures, RouterMetrics, new_registry
from event_router.ops.pauses import PauseReports
from event_router.ops.refused_streams import RefusedStreams
from event_router.runtime.connectivity import Clock

NAME = re.compile(r"\bevent_router_\w+")


def exported_names() -> set[str]:
    """Every `event_router_*` sample of a router whose figures are all known."""
    metrics = RouterMetrics(
        clock=Clock(lambda: 0.0, lambda: 0, lambda: 0.0),
        group="g",
        consumer="c",
        streams=["events:a"],
        types={"events:a": ["b"]},
    )
    metrics.groups["events:a"] = GroupFigures(1, 1.0, 1, 1)
    metrics.circuits["a"] = False
    streams = ["events:a"]
    families = new_registry("0", metrics, PauseReports(streams), RefusedStreams(streams, list)).collect()
    return {
        sample.name
        for family in families
        for sample in family.samples
        if sample.name.startswith("event_router_")
    }


def named(expression: str) -> set[str]:
    """The metrics that a PromQL expression names, recorded ones (with colons) left out."""
    return set(NAME.findall(expression))
