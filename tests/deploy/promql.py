"""What can be said of a PromQL expression without running it."""

from __future__ import annotations

import re
from collections.abc import Iterator

NAMES = re.compile(r"(?<![\w:.$])(?:event_router|process)_[\w:]+|(?<![\w:])event_router:[\w:]+")

# Every router reports these of the group or the stream, all the same.
GROUP_FIGURES = {
    "event_router_consumer_lag",
    "event_router_consumer_pending_messages",
    "event_router_consumers",
    "event_router_dead_letters",
    "event_router_entries_trimmed_total",
    "event_router_lag_seconds",
    "event_router_pending_messages",
    "event_router_stream_entries_added_total",
    "event_router_stream_length",
    "event_router_stream_paused",
    "event_router_stream_refused",
}
# Labels that tell one reporting pod from another, or a clause that may keep them.
OF_REPORTER = {"instance", "pod", "without"}
AGGREGATIONS = {"avg", "bottomk", "count", "group", "max", "min", "quantile", "stddev", "sum", "topk"}


def metrics(expression: str) -> set[str]:
    """The names of the metrics in an expression, recorded ones included."""
    return set(NAMES.findall(_without_labels(expression)))


def wrongly_summed(expression: str) -> set[str]:
    """The figures of the group that are counted or drawn once for each pod, not made one by max."""
    bare = _without_labels(expression)
    wrong = set()
    for found in NAMES.finditer(bare):
        kept = OF_REPORTER | ({"consumer"} if found[0] == "event_router_consumer_lag" else set())
        name, by = next(_aggregations(bare, found.start()), ("", ""))
        if found[0] in GROUP_FIGURES and (name != "max" or kept & set(re.findall(r"\w+", by))):
            wrong.add(found[0])
    return wrong


def unfiltered(expression: str) -> str:
    """The expression with a result wherever its operands have one: no comparison or absence leaves out."""
    compared = re.sub(r" (==|!=|<=|>=|<|>) (?!bool)", r" \1 bool ", expression)
    return re.sub(r"\babsent\(", "(", compared).replace(" unless ", " and ")


def _without_labels(expression: str) -> str:
    """The expression with what stands in braces blanked, at the same length."""
    return re.sub(r"\{[^}]*\}", lambda found: " " * len(found[0]), expression)


def _aggregations(expression: str, position: int) -> Iterator[tuple[str, str]]:
    """The aggregations around a position, the innermost first, each with its clause of labels."""
    depth = 0
    for index in range(position - 1, -1, -1):
        if expression[index] == ")":
            depth += 1
        elif expression[index] == "(":
            depth -= 1
            if depth < 0:
                depth = 0
                head = re.search(r"([a-z_]+)\s*((?:by|without)\s*\([^()]*\)\s*)?$", expression[:index])
                if head and head[1] in AGGREGATIONS:
                    yield head[1], head[2] or ""
