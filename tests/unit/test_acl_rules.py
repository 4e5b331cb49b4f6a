"""The rules name what the router uses: files in config, commands of scripts, templates of settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from event_router.core.acl_rules import AclUser, with_setinfo
from event_router.core.errors import ConfigurationError
from event_router.core.keys import KeyNames
from event_router.core.permissions import Grant, Places, operator_grants, relay_grants, router_grants
from tests.integration.cli_calls import call, refusal

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "event_router"
ROUTERS_SCRIPTS = (
    *(f"redis_io/scripts/{name}" for name in ("commit", "ensure_group", "inspect", "lease", "read_state")),
    *(f"redis_io/scripts/{name}" for name in ("remove_consumers", "repair_lag", "retain", "take")),
    *(f"messaging/scripts/{name}" for name in ("relay_keep", "relay_take")),
    *(
        f"patterns/scripts/{name}"
        for name in ("close_input", "open_inputs", "presence_expire", "presence_update")
    ),
    *("lua/presence", "lua/presence_announced"),
)
OPERATORS_SCRIPTS = (
    *(f"redis_io/scripts/{name}" for name in ("dead_letter_replay", "dead_letter_replay_raw", "inspect")),
    *(f"patterns/scripts/{name}" for name in ("close_input", "open_inputs", "read_inputs", "collect_input")),
    *(f"patterns/scripts/presence_{name}" for name in ("count", "get", "page")),
)
ROUTERS_MODULES = (
    "redis_io/claims",
    "redis_io/groups",
    "redis_io/reader",
    "redis_io/server",
    "messaging/outbox",
)
CALLED = re.compile(r"\bp?call\(\s*['\"]([A-Z]+)['\"](?:,\s*['\"]([A-Z]+)['\"])?")
SAMPLED = re.compile(r"\{\s*'([A-Z]+)'(?:, '(STREAM)')?")
PARENTS = ("XINFO", "XGROUP", "CLIENT")


def commands_in(text: str) -> set[str]:
    """The commands that a script or module sends, as ACL rules write them."""
    found = {*CALLED.findall(text), *SAMPLED.findall(text)}
    return {f"{command}|{word}".lower() if command in PARENTS else command.lower() for command, word in found}


def granted(grants: tuple[Grant, ...]) -> set[str]:
    return {command for grant in grants for command in grant.commands}


def used(paths: tuple[str, ...], suffix: str) -> Iterator[tuple[str, str]]:
    for path in paths:
        text = (PACKAGE / f"{path}.{suffix}").read_text("utf-8")
        for command in commands_in(text):
            yield path, command


def test_every_command_of_the_routers_scripts_and_modules_is_granted() -> None:
    allowed = granted(router_grants(Places.of(KeyNames()), publishes=False))
    found = [*used(ROUTERS_SCRIPTS, "lua"), *used(ROUTERS_MODULES, "py")]
    assert len(found) > 60
    assert [(path, command) for path, command in found if command not in allowed] == []


def test_every_command_of_the_operators_scripts_is_granted() -> None:
    allowed = granted(operator_grants(Places.of(KeyNames())))
    assert [
        (path, command) for path, command in used(OPERATORS_SCRIPTS, "lua") if command not in allowed
    ] == []


def test_commands_are_found_where_they_are_written() -> None:
    text = "call('XGROUP', 'SETID', s) redis.pcall('HMGET', k) { 'SET', 'v' } { 'XINFO', 'STREAM' }"
    text += " call(\n'XADD', s)"
    assert commands_in(text) == {"xgroup|setid", "hmget", "set", "xinfo|stream", "xadd"}


@pytest.mark.parametrize(("name", "users"), [("streams", ("router", "operator")), ("pubsub", ("relay",))])
def test_the_files_in_config_are_what_the_command_prints(name: str, users: tuple[str, ...]) -> None:
    words = [word for user in users for word in ("--user", user)]
    printed = call("acl", "--format", "aclfile", *words)
    assert printed.out == (ROOT / f"config/redis-{name}.acl").read_text("utf-8")
    assert "placeholders" in printed.err


def test_patterns_come_from_the_templates() -> None:
    names = KeyNames(
        stream_template="{domain}:in:{shard}",
        state_prefix="app",
        job_state_template="jobs:{domain}:{job_id}",
        job_channel_template="progress:{job_id}",
    )
    places = Places.of(names, streams=["audit"], channels=["deals:*"])
    assert places.streams == ("*:in:*", "audit", "events:notification")
    assert places.letters == ("dlq:*:in:*",)
    assert {"app:*", "jobs:*:*", "stats:*"} <= set(places.states)
    assert {"progress:*", "deals:*"} <= set(places.channels)
    plain = Places.of(KeyNames(stream_template="{domain}:in"))
    assert plain.streams == ("*:in", "*:in:*", "events:notification")


def test_a_template_without_a_word_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="JOB_STATE_TEMPLATE"):
        Places.of(KeyNames(job_state_template="{domain}:{job_id}"))
    assert "EVENT_ROUTER_STREAM_TEMPLATE" in refusal(call("acl", env={"STREAM_TEMPLATE": "{domain}"}), 2)


def test_a_rule_in_full() -> None:
    grants = (
        Grant("connections", ("ping", "client|id")),
        Grant("events", ("xack",), ("events:*", "other")),
        Grant("fan-out", ("publish",), channels=("updates",)),
    )
    user = AclUser("relay", grants, "abc")
    digest = "#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    rule = f"on {digest} -@all +ping +client|id (~events:* ~other +xack) (&updates +publish)"
    assert user.line_of_file == f"user event-router-relay {rule}"
    assert user.setuser == f"ACL SETUSER event-router-relay reset {rule}"
    assert "+client|setinfo" in AclUser("relay", with_setinfo(grants)).rule


def test_setinfo_is_in_the_rules_for_servers_that_know_it() -> None:
    assert "setinfo" not in call("acl").out
    assert call("acl", "--server-version", "7.2.5").out.count("+client|setinfo") == 3
    assert "7.2" in refusal(call("acl", "--server-version", "new"), 2)


def test_one_server_for_both_roles_has_the_router_publish() -> None:
    assert "+publish" in call("acl", "--user", "router").out
    assert "+publish" not in call("acl", "--user", "router", env={"REDIS_PUBSUB_URL": "redis://other"}).out
    assert granted(relay_grants(Places.of(KeyNames()))) >= {"publish", "ping"}


@pytest.mark.parametrize("wrong", ["router", "nobody=x", "router=", "router=/no/such/file"])
def test_a_password_file_that_is_none_is_named(wrong: str) -> None:
    assert wrong in refusal(call("acl", "--password-file", wrong), 2)


def test_passwords_are_hashed_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("abc\n")
    printed = call("acl", "--user", "router", "--password-file", f"router={file}")
    assert "#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in printed.out
    assert printed.err == ""
    file.write_text("\n")
    assert "empty" in refusal(call("acl", "--password-file", f"router={file}"), 2)


@pytest.mark.parametrize("pattern", ["*", "a b", "x) (+@all"])
def test_patterns_that_would_open_everything_or_end_the_selector_are_refused(pattern: str) -> None:
    assert "no pattern" in refusal(call("acl", "--stream", pattern), 2)
    assert "no pattern" in refusal(call("acl", "--channel", pattern), 2)


def test_json_names_purposes() -> None:
    rows = call("acl", "--format", "json", "--stream", "audit").rows
    assert [row["user"] for row in rows] == ["event-router", "event-router-relay", "event-router-operator"]
    assert any(grant["purpose"] == "events" and "audit" in grant["keys"] for grant in rows[0]["grants"])


@pytest.mark.parametrize("page", ["security", "doctor"])
def test_commands_of_the_pages_exist_with_their_options(page: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text("utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("event-router ")]
    assert lines
    for line in lines:
        words = line.partition("|")[0].split()[1:]
        shown = call(words[0], "--help")
        assert shown.code == 0
        assert [word for word in words if word.startswith("--") and word not in shown.out] == []
