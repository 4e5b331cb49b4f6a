"""What the operators' pages name is there, and the commands they give for looking work as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import yaml
from typer.testing import CliRunner

from event_router.cli.commands import app
from event_router.core.outcome import REASONS
from event_router.settings import Settings
from tests.deploy.renderings import KUBERNETES, ROOT
from tests.environment.routers import environment, program
from tests.environment.servers import Server

PAGES = ("runbook.md", "operations.md")
TEXTS = {page: (ROOT / "docs" / page).read_text(encoding="utf-8") for page in PAGES}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOOKING = ("status", "pending", "check", "dlq list")

every_page = pytest.mark.parametrize("page", PAGES)


def commands(page: str) -> list[str]:
    """The lines of a page's shell blocks, continued ones joined."""
    blocks = [text.replace("\\\n", " ") for language, text in BLOCK.findall(TEXTS[page]) if language == "sh"]
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def router_commands(page: str) -> list[str]:
    """The words after `event-router` of each of its commands, in blocks and in prose."""
    found = [
        line.partition("event-router ")[2] for line in commands(page) if line.startswith("event-router ")
    ]
    prose = BLOCK.sub("", TEXTS[page]).replace("\n", " ")
    found += re.findall(r"`event-router ([^`]+)`", prose)
    return [" ".join(words.split()) for words in found]


@every_page
def test_commands_of_the_router_exist_with_their_options(page: str) -> None:
    assert router_commands(page)
    for line in router_commands(page):
        words = shlex.split(line)
        depth = 2 if words[0] in ("consumers", "dlq", "group", "state") else 1
        shown = CliRunner().invoke(app, [*words[:depth], "--help"])
        assert shown.exit_code == 0, line
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.output, line


@pytest.mark.once
def test_commands_for_looking_work_as_they_stand(server: Server) -> None:
    given = {line for page in PAGES for line in router_commands(page) if line in LOOKING}
    assert given == set(LOOKING)
    for line in sorted(given):
        done = subprocess.run(
            [program(), *line.split()],
            env=environment({"REDIS_STREAMS_URL": server.url}),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


@every_page
def test_settings_that_are_named_exist(page: str) -> None:
    known = {name.upper() for name in Settings.model_fields} | {"POD_NAME"}
    named = set(re.findall(r"EVENT_ROUTER_([A-Z_]+[A-Z])", TEXTS[page]))
    quoted = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TEXTS[page]))
    named |= {name.removeprefix("EVENT_ROUTER_") for name in quoted}
    assert named <= known


@every_page
def test_links_lead_somewhere(page: str) -> None:
    headings = re.findall(r"^#+ (.*)$", TEXTS[page], re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", TEXTS[page]):
        assert not target or "://" in target or (ROOT / "docs" / target).exists(), target
        if not target:
            assert anchor in anchors, anchor


@every_page
def test_paths_that_are_named_exist(page: str) -> None:
    for path in re.findall(r"(?<![\w/.])((?:deploy|config)/[\w./-]*[\w/])", TEXTS[page]):
        # deploy/event-router is kubectl's short word for a Deployment.
        assert path == "deploy/event-router" or (ROOT / path).exists(), path
    for component in re.findall(r"components/(\w+)", TEXTS[page]):
        assert (KUBERNETES / "components" / component).is_dir()


def test_runbook_explains_every_reason_of_a_dead_letter() -> None:
    table = re.findall(r"^\| `(\w+)` \|", TEXTS["runbook.md"], re.MULTILINE)
    assert sorted(table) == sorted(REASONS)


def test_manifests_on_the_pages_are_manifests() -> None:
    import kubernetes_validate

    shown = [text for page in PAGES for language, text in BLOCK.findall(TEXTS[page]) if language == "yaml"]
    assert shown
    for text in shown:
        kubernetes_validate.validate(yaml.safe_load(text), "1.37", strict=True)
