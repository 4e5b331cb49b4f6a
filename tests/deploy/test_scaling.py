"""What the scaler is answered: unsettled entries of a stream, none while an operator has paused it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.deploy.prometheus_rule import RULES
from tests.deploy.promtool import promtool
from tests.deploy.scaler import scaler_queries

STREAM = "events:auth"
OF_GROUP = f'stream="{STREAM}",group="event-router-group"'
LAG = f"event_router_consumer_lag{{{OF_GROUP},consumer="
PENDING = f"event_router_pending_messages{{{OF_GROUP},pod="
PAUSED = f'event_router_stream_paused{{stream="{STREAM}",pod='

UNSETTLED = {f'{LAG}"a",pod="a"}}': 7, f'{LAG}"b",pod="b"}}': 7, f'{PENDING}"a"}}': 3, f'{PENDING}"b"}}': 3}
FIGURES: dict[str, tuple[Mapping[str, int], float | None]] = {
    "goes on": ({**UNSETTLED, f'{PAUSED}"a"}}': 0, f'{PAUSED}"b"}}': 0}, 10),
    "paused": ({**UNSETTLED, f'{PAUSED}"a"}}': 1, f'{PAUSED}"b"}}': 1}, 0),
    "one router has not heard of it": ({**UNSETTLED, f'{PAUSED}"a"}}': 1, f'{PAUSED}"b"}}': 0}, 0),
    "another stream is paused": (
        {**UNSETTLED, 'event_router_stream_paused{stream="events:x",pod="a"}': 1},
        10,
    ),
    "routers that report no pauses": (UNSETTLED, 10),
    "figures unknown, goes on": ({f'{PAUSED}"a"}}': 0}, None),
    "figures unknown, paused": ({f'{PAUSED}"a"}}': 1}, None),
}


@pytest.mark.parametrize(("series", "answer"), FIGURES.values(), ids=list(FIGURES))
def test_it_is_answered(series: Mapping[str, int], answer: float | None, tmp_path: Path) -> None:
    asked = {
        "expr": scaler_queries()[STREAM],
        "eval_time": "1m",
        "exp_samples": [] if answer is None else [{"labels": "{}", "value": answer}],
    }
    given = [{"series": name, "values": f"{value}x5"} for name, value in series.items()]
    test = {"interval": "1m", "input_series": given, "promql_expr_test": [asked]}
    path = tmp_path / "scaling.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules) for rules in RULES], "tests": [test]}))
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_stream_is_asked_for_in_the_same_way() -> None:
    alike = {query.replace(stream, STREAM) for stream, query in scaler_queries().items()}
    assert len(alike) == 1
