"""The dashboard to begin with: what all routers do together, from the streams to the fan-out."""

from __future__ import annotations

from deploy.grafana.panels import Dashboard, Panel, Query, Row, Variable

HERE = 'namespace=~"$namespace"'
STREAM = f'{HERE},stream=~"$stream"'
BY_STREAM = "by (namespace, stream)"
BY_GROUP = "by (namespace, stream, group)"
RED_FROM_ONE = ((None, "green"), (1, "red"))
ONLY_THIS_STREAM = (
    "Only this stream",
    "/d/event-router?${__url_time_range}&var-stream=${__field.labels.stream}",
)
THIS_POD = ("This pod", "/d/event-router-pods?${__url_time_range}&var-instance=${__field.labels.instance}")


def rate(counter: str, labels: str = STREAM) -> str:
    """The counter's rate a second in each series."""
    return f"rate(event_router_{counter}{{{labels}}}[$__rate_interval])"


def quantile(share: float, histogram: str, by: str, labels: str = STREAM) -> str:
    """A quantile of a histogram over all routers."""
    counts = rate(f"{histogram}_bucket", labels)
    return f"histogram_quantile({share}, sum by (le{by}) ({counts}))"


GLANCE = Row(
    "At a glance",
    height=4,
    panels=(
        Panel(
            "Routers",
            "Processes that report. None for 5 minutes calls somebody.",
            "none",
            (Query(f"count(event_router_build_info{{{HERE}}})"),),
            kind="stat",
            width=3,
            steps=((None, "red"), (1, "green")),
        ),
        Panel(
            "In",
            "Entries a second that producers add.",
            "ops",
            (Query(f"sum(max {BY_STREAM} ({rate('stream_entries_added_total')}))"),),
            kind="stat",
            width=3,
            steps=((None, "blue"),),
        ),
        Panel(
            "Processed",
            "Events a second whose commit is confirmed.",
            "ops",
            (Query(f"sum({rate('events_processed_total')})"),),
            kind="stat",
            width=3,
            steps=((None, "blue"),),
        ),
        Panel(
            "Waiting",
            "Entries that no router was given yet.",
            "short",
            (Query(f"sum(max {BY_GROUP} (event_router_consumer_lag{{{STREAM}}}))"),),
            kind="stat",
            width=3,
            steps=((None, "green"), (10_000, "yellow"), (100_000, "red")),
        ),
        Panel(
            "Oldest unsettled",
            "Age of the oldest entry that is not settled. The objective is 30 s.",
            "s",
            (Query(f"max(event_router_lag_seconds{{{STREAM}}})"),),
            kind="stat",
            width=3,
            steps=((None, "green"), (10, "yellow"), (30, "red")),
        ),
        Panel(
            "Objective, last hour",
            "Share of the last hour in which the oldest unsettled entry of the worst stream was younger than"
            " 30 s. The objective is 99 %.",
            "percentunit",
            (Query(f"1 - max(event_router:lag_objective:error_ratio1h{{{STREAM}}})"),),
            kind="stat",
            width=3,
            maximum=1,
            steps=((None, "red"), (0.95, "yellow"), (0.99, "green")),
        ),
        Panel(
            "Dead letters",
            "Entries in the dead-letter streams. They stay until somebody replays or purges them.",
            "short",
            (Query(f"sum(max {BY_STREAM} (event_router_dead_letters{{{STREAM}}}))"),),
            kind="stat",
            width=3,
            steps=RED_FROM_ONE,
        ),
        Panel(
            "Streams Redis",
            "Whether every router reaches the Redis of the streams.",
            "none",
            (Query(f'min(event_router_redis_connected{{{HERE},role="streams"}})'),),
            kind="stat",
            width=3,
            steps=((None, "red"), (1, "green")),
            values={"0": "not reached", "1": "reached"},
        ),
    ),
)

FLOW = Row(
    "Event flow",
    (
        Panel(
            "In",
            "Entries a second added to each stream.",
            "ops",
            (Query(f"max {BY_STREAM} ({rate('stream_entries_added_total')})", "{{stream}}"),),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Processed by type",
            "Events a second whose commit is confirmed. Below what comes in, the lag rises.",
            "ops",
            (
                Query(
                    f"sum by (namespace, stream, event_type) ({rate('events_processed_total')})",
                    "{{stream}} {{event_type}}",
                ),
            ),
            stack=True,
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Failed attempts by type",
            "Attempts a second at which a handler raised or took too long. Each is retried until it succeeds"
            " or becomes a dead letter.",
            "ops",
            (
                Query(
                    f"sum by (namespace, stream, event_type) ({rate('events_failed_total')})",
                    "{{stream}} {{event_type}}",
                ),
            ),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "New dead letters by reason",
            "Entries a second that were moved to the dead letters. docs/runbook.md says what each reason asks"
            " for.",
            "ops",
            (
                Query(
                    f"sum by (namespace, stream, reason) ({rate('events_dead_lettered_total')})",
                    "{{stream}} {{reason}}",
                ),
            ),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Further attempts",
            "Attempts a second after the first one, by type.",
            "ops",
            (
                Query(
                    f"sum by (namespace, stream, event_type) ({rate('events_retried_total')})",
                    "{{stream}} {{event_type}}",
                ),
            ),
        ),
        Panel(
            "Taken over, and found settled",
            "Entries a second claimed from consumers that went away, and entries that another router had"
            " settled first. Both rise when pods die or freeze.",
            "ops",
            (
                Query(f"sum {BY_STREAM} ({rate('entries_claimed_total')})", "{{stream}} claimed"),
                Query(f"sum {BY_STREAM} ({rate('events_duplicate_total')})", "{{stream}} settled before"),
            ),
        ),
    ),
)

LAG = Row(
    "Lag",
    (
        Panel(
            "Lag in seconds",
            "Age of the oldest unsettled entry, whether it waits or is worked on. The line is the objective.",
            "s",
            (Query(f"max {BY_GROUP} (event_router_lag_seconds{{{STREAM}}})", "{{stream}}"),),
            steps=((None, "green"), (30, "red")),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Lag in entries",
            "Entries not yet delivered to the group. Not drawn where Redis cannot tell.",
            "short",
            (Query(f"max {BY_GROUP} (event_router_consumer_lag{{{STREAM}}})", "{{stream}}"),),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Pending",
            "Entries delivered and not settled: being worked on, waiting for a further attempt, or left by a"
            " consumer that went away.",
            "short",
            (Query(f"max {BY_GROUP} (event_router_pending_messages{{{STREAM}}})", "{{stream}}"),),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Pending by consumer",
            "Who holds the pending entries, the ten that hold most. A name without a router is a pod that"
            " died; its entries are taken over after CLAIM_MIN_IDLE_MS.",
            "short",
            (
                Query(
                    "topk(10, max by (namespace, stream, group, consumer)"
                    f" (event_router_consumer_pending_messages{{{STREAM}}}))",
                    "{{consumer}} {{stream}}",
                ),
            ),
        ),
        Panel(
            "Consumers",
            "Consumers that the group knows, beside the routers that report. Far above, dead ones pile up.",
            "short",
            (
                Query(f"max {BY_GROUP} (event_router_consumers{{{STREAM}}})", "{{stream}}"),
                Query(f"count(event_router_build_info{{{HERE}}})", "routers"),
            ),
        ),
        Panel(
            "Trim headroom",
            "Settled share of each stream. At nought a producer's MAXLEN destroys unread entries; without one"
            " it only says how large the backlog is.",
            "percentunit",
            (Query(f"event_router:trim_headroom:ratio{{{STREAM}}}", "{{stream}}"),),
            steps=((None, "red"), (0.2, "green")),
            maximum=1,
        ),
    ),
)

LATENCY = Row(
    "Latency and age",
    (
        Panel(
            "Handler time, 99th percentile",
            "Time a handler ran for one event, by type.",
            "s",
            (
                Query(
                    quantile(0.99, "processing_duration_seconds", ", stream, event_type"),
                    "{{stream}} {{event_type}}",
                ),
            ),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Handler time, median",
            "Half of the events take no longer.",
            "s",
            (
                Query(
                    quantile(0.5, "processing_duration_seconds", ", stream, event_type"),
                    "{{stream}} {{event_type}}",
                ),
            ),
        ),
        Panel(
            "Age at commit",
            "Time from XADD to commit: waiting, handling and committing together.",
            "s",
            (
                Query(quantile(0.99, "event_age_seconds", ", stream"), "{{stream}} 99 %"),
                Query(quantile(0.5, "event_age_seconds", ", stream"), "{{stream}} half"),
            ),
            steps=((None, "green"), (30, "red")),
            link=ONLY_THIS_STREAM,
        ),
    ),
)

COMMITS = Row(
    "Commits",
    (
        Panel(
            "Commit time",
            "Time of a commit, waiting for Redis included. Redis is blocked for a part of it, 10 ms at most.",
            "s",
            (
                Query(quantile(0.99, "commit_duration_seconds", "", HERE), "99 %"),
                Query(quantile(0.5, "commit_duration_seconds", "", HERE), "half"),
            ),
            steps=((None, "green"), (0.1, "yellow"), (1, "red")),
        ),
        Panel(
            "Events in a commit",
            "Batches form by themselves: the busier, the larger, up to COMMIT_MAX_EVENTS.",
            "short",
            (
                Query(
                    f"sum({rate('commit_batch_events_sum', HERE)})"
                    f" / sum({rate('commit_batch_events_count', HERE)})",
                    "mean",
                ),
                Query(quantile(0.99, "commit_batch_events", "", HERE), "99 %"),
            ),
        ),
        Panel(
            "Commits and conflicts",
            "Commits a second, and handler runs a second that were repeated because somebody had changed what"
            " they read.",
            "ops",
            (
                Query(f"sum({rate('commit_duration_seconds_count', HERE)})", "commits"),
                Query(f"sum {BY_STREAM} ({rate('commit_conflicts_total')})", "{{stream}} conflicts"),
            ),
        ),
    ),
)

REDIS = Row(
    "Redis",
    (
        Panel(
            "Reached",
            "Routers that reach each Redis, by its role. Without streams nothing is processed; without pubsub"
            " live messages wait.",
            "none",
            (Query(f"sum by (namespace, role) (event_router_redis_connected{{{HERE}}})", "{{role}}"),),
        ),
        Panel(
            "Stream length",
            "Entries in each stream. Routers trim what every group has settled, down to STREAM_MIN_LENGTH.",
            "short",
            (Query(f"max {BY_STREAM} (event_router_stream_length{{{STREAM}}})", "{{stream}}"),),
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Dead letters kept",
            "Entries in the dead-letter streams. Not capped: they are the only copy.",
            "short",
            (Query(f"max {BY_STREAM} (event_router_dead_letters{{{STREAM}}})", "{{stream}}"),),
            steps=RED_FROM_ONE,
            link=ONLY_THIS_STREAM,
        ),
        Panel(
            "Destroyed before they were settled",
            "Entries a second that were trimmed unread or while pending. Anything here is a loss.",
            "ops",
            (Query(f"max {BY_STREAM} ({rate('entries_trimmed_total')})", "{{stream}}"),),
            steps=((None, "green"), (0.001, "red")),
        ),
        Panel(
            "Not read",
            "1 while a domain's breaker is open because most of its events fail at once, an operator has"
            " paused a stream, or Redis refuses it.",
            "none",
            (
                Query(
                    f"max by (namespace, domain) (event_router_circuit_open{{{HERE}}})", "{{domain}} breaker"
                ),
                Query(f"max {BY_STREAM} (event_router_stream_paused{{{STREAM}}})", "{{stream}} paused"),
                Query(f"max {BY_STREAM} (event_router_stream_refused{{{STREAM}}})", "{{stream}} refused"),
            ),
            steps=RED_FROM_ONE,
            maximum=1,
        ),
    ),
)

FAN_OUT = Row(
    "Fan-out",
    (
        Panel(
            "Messages by channel and type",
            "Live messages a second that routers published and services received.",
            "ops",
            (
                Query(
                    f"sum by (namespace, channel, type) ({rate('pubsub_messages_total', HERE)})",
                    "{{channel}} {{type}}",
                ),
            ),
        ),
        Panel(
            "Dropped",
            "Messages a second that were not published, or reached nobody. The state is right all the same.",
            "ops",
            (Query(f"sum by (namespace, channel) ({rate('pubsub_dropped_total', HERE)})", "{{channel}}"),),
            steps=((None, "green"), (0.001, "yellow")),
        ),
        Panel(
            "Subscribers",
            "Subscriptions of the services that report them.",
            "short",
            (
                Query(
                    f"sum by (namespace, channel) (event_router_pubsub_subscribers{{{HERE}}})",
                    "{{channel}}",
                ),
            ),
        ),
        Panel(
            "Subscribers' handler time, 99th percentile",
            "Time that handlers of services took for one message.",
            "s",
            (
                Query(
                    quantile(0.99, "pubsub_processing_duration_seconds", ", channel, handler", HERE),
                    "{{channel}} {{handler}}",
                ),
            ),
        ),
        Panel(
            "Who relays",
            "1 for the router that publishes a domain's fan-out log; the others stand by.",
            "none",
            (
                Query(
                    f"max by (namespace, instance, outbox) (event_router_relay_leads{{{HERE}}})",
                    "{{outbox}} {{instance}}",
                ),
            ),
            link=THIS_POD,
            maximum=1,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="event-router",
    title="Event router",
    description="What all routers do together. Choose a stream to see it alone; pods have their own page.",
    variables=(
        Variable("namespace", "Namespace", "event_router_build_info"),
        Variable("stream", "Stream", "event_router_pending_messages"),
    ),
    rows=(GLANCE, FLOW, LAG, LATENCY, COMMITS, REDIS, FAN_OUT),
    links=(("Pods", "/d/event-router-pods"),),
)
