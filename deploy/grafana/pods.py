"""The dashboard of single routers: which of them differs from the others."""

from __future__ import annotations

from deploy.grafana.overview import HERE, THIS_POD
from deploy.grafana.panels import Dashboard, Panel, Query, Row, Variable

POD = f'{HERE},instance=~"$instance"'
BY_POD = "by (namespace, pod, instance)"
NAME = "{{pod}} {{instance}}"


def rate(counter: str) -> str:
    """The rate a second of a router's own counter."""
    return f"rate(event_router_{counter}{{{POD}}}[$__rate_interval])"


def of_routers(expression: str) -> str:
    """A figure that every Python process exports, of the routers alone."""
    return f"{expression} and on (namespace, instance) event_router_build_info{{{POD}}}"


def process(metric: str) -> str:
    """A gauge of the process."""
    return of_routers(f"process_{metric}{{{POD}}}")


WORK = Row(
    "Work",
    (
        Panel(
            "Processed",
            "Events a second whose commit this router confirmed.",
            "ops",
            (Query(f"sum {BY_POD} ({rate('events_processed_total')})", NAME),),
            link=THIS_POD,
        ),
        Panel(
            "Failed attempts",
            "Attempts a second that failed. On one router only: look at its node and its network.",
            "ops",
            (Query(f"sum {BY_POD} ({rate('events_failed_total')})", NAME),),
            link=THIS_POD,
        ),
        Panel(
            "In flight",
            "Events between read and commit, at most MAX_IN_FLIGHT.",
            "short",
            (Query(f"event_router_in_flight{{{POD}}}", NAME),),
            link=THIS_POD,
        ),
        Panel(
            "Handler time, mean",
            "Mean time of a handler. On one router only: its node is short of CPU.",
            "s",
            (
                Query(
                    f"sum {BY_POD} ({rate('processing_duration_seconds_sum')})"
                    f" / sum {BY_POD} ({rate('processing_duration_seconds_count')})",
                    NAME,
                ),
            ),
            link=THIS_POD,
        ),
        Panel(
            "Commit time, mean",
            "Mean time of a commit, waiting for Redis included.",
            "s",
            (
                Query(
                    f"sum {BY_POD} ({rate('commit_duration_seconds_sum')})"
                    f" / sum {BY_POD} ({rate('commit_duration_seconds_count')})",
                    NAME,
                ),
            ),
            link=THIS_POD,
        ),
        Panel(
            "Taken over",
            "Entries a second that this router claimed from consumers that went away.",
            "ops",
            (Query(f"sum {BY_POD} ({rate('entries_claimed_total')})", NAME),),
            link=THIS_POD,
        ),
    ),
)

PROCESS = Row(
    "Process",
    (
        Panel(
            "CPU",
            "Cores in use. One process uses one at most: near 1, add routers.",
            "none",
            (
                Query(
                    of_routers(f"rate(process_cpu_seconds_total{{{POD}}}[$__rate_interval])"),
                    NAME,
                ),
            ),
            steps=((None, "green"), (0.9, "red")),
            link=THIS_POD,
        ),
        Panel(
            "Memory",
            "Resident memory. The manifests limit it to 512 MiB.",
            "bytes",
            (Query(process("resident_memory_bytes"), NAME),),
            steps=((None, "green"), (400 * 1024**2, "yellow"), (512 * 1024**2, "red")),
            link=THIS_POD,
        ),
        Panel(
            "Open files",
            "File descriptors. A steady rise is a leak.",
            "short",
            (Query(process("open_fds"), NAME),),
            link=THIS_POD,
        ),
        Panel(
            "Age of the process",
            "Time since the start. A saw-tooth is a pod that restarts.",
            "s",
            (Query(f"time() - ({process('start_time_seconds')})", NAME),),
            link=THIS_POD,
        ),
        Panel(
            "Redis reached",
            "1 while this router reaches the Redis of a role.",
            "none",
            (Query(f"event_router_redis_connected{{{POD}}}", NAME + " {{role}}"),),
            maximum=1,
            link=THIS_POD,
        ),
        Panel(
            "Breakers",
            "1 while this router pauses a domain. On one router only: it is that router's trouble.",
            "none",
            (Query(f"event_router_circuit_open{{{POD}}}", NAME + " {{domain}}"),),
            steps=((None, "green"), (1, "red")),
            maximum=1,
            link=THIS_POD,
        ),
    ),
)

VERSIONS = Row(
    "Versions",
    (
        Panel(
            "What runs",
            "Version and Python of each router. More than one version is a rollout under way, or stuck.",
            "none",
            (Query(f"event_router_build_info{{{POD}}}"),),
            kind="table",
            width=24,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="event-router-pods",
    title="Event router: pods",
    description="Each router by itself. Choose one, or look for the line that leaves the others.",
    variables=(
        Variable("namespace", "Namespace", "event_router_build_info"),
        Variable("instance", "Pod", "event_router_build_info"),
    ),
    rows=(WORK, PROCESS, VERSIONS),
    links=(("All routers", "/d/event-router"),),
)
