"""The dashboards are what their source makes, can be read, and count nothing once for each pod."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from deploy.grafana.generate import texts
from tests.deploy.dashboards import DASHBOARDS, FOLDER, chosen, panels, queries
from tests.deploy.prometheus_rule import groups
from tests.deploy.promql import metrics, unfiltered, wrongly_summed

every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=list(DASHBOARDS))


def test_files_are_what_their_source_makes() -> None:
    assert set(FOLDER.glob("*.json")) == set(texts())
    for path, text in texts().items():
        assert path.read_text(encoding="utf-8") == text, "run: python -m deploy.grafana.generate"


@every_dashboard
def test_each_panel_says_what_it_shows(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) > 10
    assert len(set(titles)) == len(titles) or dashboard["uid"] == "event-router"
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        first, *others = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert first is None
        assert others == sorted(others)
        assert panel["targets"]


@every_dashboard
def test_panels_stand_beside_one_another(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in itertools.combinations([p["gridPos"] for p in dashboard["panels"]], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (
            f"{one} {other}"
        )


@every_dashboard
def test_variables_that_are_used_are_there(dashboard: dict[str, Any]) -> None:
    known = {found["name"] for found in dashboard["templating"]["list"]}
    used = {name for panel in panels(dashboard) for t in panel["targets"] for name in variables(t["expr"])}
    assert used <= known
    assert known - used == {"datasource"}, "offered, and without effect"
    for panel in panels(dashboard):
        assert panel["datasource"]["uid"] == "${datasource}"


def variables(expression: str) -> set[str]:
    """The variables of a query, Grafana's own left out."""
    return {name for name in re.findall(r"\$\{?(\w+)", expression) if not name.startswith("__")}


@every_dashboard
def test_links_lead_to_dashboards_and_choose_what_they_know(dashboard: dict[str, Any]) -> None:
    urls = [link["url"] for link in dashboard["links"]]
    for panel in panels(dashboard):
        for link in panel["fieldConfig"]["defaults"].get("links", ()):
            urls.append(link["url"])
            lines = {label for t in panel["targets"] for label in labels_of_lines(t["expr"])}
            assert set(re.findall(r"__field\.labels\.(\w+)", link["url"])) <= lines, panel["title"]
    assert len(urls) > 5
    for url in urls:
        target = DASHBOARDS[re.findall(r"^/d/([\w-]+)", url)[0]]
        known = {found["name"] for found in target["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", url)) <= known


def labels_of_lines(expression: str) -> set[str]:
    """The labels of a query's lines: those it is grouped by, or all when it is not."""
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    return set(re.findall(r"\w+", " ".join(grouped))) if grouped else {"namespace", "instance", "stream"}


def expressions() -> dict[str, str]:
    """Every expression that Prometheus is asked for, by where it stands."""
    rules = {
        rule.get("alert") or rule["record"]: rule["expr"] for group in groups() for rule in group["rules"]
    }
    return queries() | rules


def test_no_figure_of_the_group_is_counted_once_for_each_pod() -> None:
    assert (
        {where: found for where, text in expressions().items() if (found := wrongly_summed(text))}
        == {
            # Of streams, after max has made one of all pods, or the worst of everything.
        }
    )


@pytest.mark.parametrize(
    "expression",
    [
        "event_router_consumer_lag",
        'sum(event_router_consumer_lag{stream="events:auth"})',
        "sum by (stream, group) (event_router_pending_messages)",
        "avg(rate(event_router_stream_entries_added_total[5m]))",
        "max(sum by (stream) (event_router_lag_seconds))",
        "max by (stream) (event_router_consumer_lag) + sum(event_router_pending_messages)",
        "count by (stream) (event_router_dead_letters)",
        "sum(max by (stream, instance) (event_router_dead_letters))",
        "max by (stream, consumer) (event_router_consumer_lag)",
        "sum(max without (group) (event_router_dead_letters))",
    ],
)
def test_a_sum_over_pods_is_noticed(expression: str) -> None:
    assert wrongly_summed(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "max(event_router_consumer_lag)",
        'sum(max by (stream) (event_router_dead_letters{stream=~".*"}))',
        "max by (stream) (rate(event_router_stream_entries_added_total[5m]))",
        "topk(10, max by (consumer) (event_router_consumer_pending_messages))",
        "sum by (stream) (rate(event_router_events_processed_total[5m]))",
    ],
)
def test_what_is_right_passes(expression: str) -> None:
    assert not wrongly_summed(expression)


def test_metrics_are_found_in_expressions() -> None:
    expression = 'sum(event_router_a_total{b="event_router_c"}) / on (x) event_router:d:max + process_e_f'
    assert metrics(expression) == {"event_router_a_total", "event_router:d:max", "process_e_f"}


def test_comparisons_answer_instead_of_leaving_out() -> None:
    assert unfiltered('absent(a{b="c"}) > 0 and b == 0') == '(a{b="c"}) > bool 0 and b == bool 0'
    assert unfiltered("a > bool 30") == "a > bool 30"


def test_choices_are_made() -> None:
    assert chosen('rate(a{stream=~"$stream"}[$__rate_interval])') == 'rate(a{stream=~".*"}[30s])'
