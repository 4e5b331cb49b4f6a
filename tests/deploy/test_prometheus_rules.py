"""The rules are valid, each alert was seen firing and not firing, and each has its entry in the runbook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus_rule import MANIFEST, RULES, alerts, manifest
from tests.deploy.promtool import promtool
from tests.deploy.renderings import ROOT

RULE_TESTS = sorted((Path(__file__).parent / "rule_tests").glob("*.yml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")


def test_rules_are_valid() -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_must_and_only_then(path: Path) -> None:
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def outcomes() -> Iterator[tuple[str, bool]]:
    """Each alert that a rule test asks for, with whether it must fire."""
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for asked in test["alert_rule_test"]:
                yield asked["alertname"], bool(asked["exp_alerts"])


def test_each_alert_is_seen_firing_and_not_firing() -> None:
    assert set(outcomes()) == {(name, fires) for name in alerts() for fires in (True, False)}


def test_operator_gets_the_same_rules() -> None:
    assert MANIFEST.read_text(encoding="utf-8") == manifest(), "run: python -m tests.deploy.prometheus_rule"


@pytest.mark.parametrize(("name", "rule"), alerts().items(), ids=list(alerts()))
def test_each_alert_says_what_happened_how_urgent_it_is_and_where_to_read_on(
    name: str, rule: dict[str, Any]
) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def entries() -> dict[str, str]:
    """The sections of the runbook by their heading."""
    parts = re.split(r"^## (.+)\n", RUNBOOK, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    assert list(entries()) == list(alerts()), "in the order of the rules"


@pytest.mark.parametrize("name", alerts())
def test_entry_begins_with_the_command_to_run(name: str) -> None:
    assert re.match(r"\n```sh\n(event-router|kubectl) ", entries()[name])
