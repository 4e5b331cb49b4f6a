"""The settings files, Redis configurations and the image agree with the program."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
PREFIX = "EVENT_ROUTER_"

# Settings whose default is "unset", which TOML cannot say.
UNSET = {"redis_streams_url", "redis_pubsub_url", "operator_url", "consumer"}


def config(name: str) -> dict[str, Any]:
    """The content of a settings file."""
    return tomllib.loads((CONFIG / f"{name}.toml").read_text(encoding="utf-8"))


def directives(name: str) -> dict[str, str]:
    """The directives of a Redis configuration, by name."""
    lines = (CONFIG / f"{name}.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


def test_default_toml_gives_every_setting_its_default() -> None:
    from event_router.settings import Settings

    named = config("default")
    assert set(named) == set(Settings.model_fields) - UNSET
    defaults = Settings()
    assert {name: getattr(Settings(**named), name) for name in named} == {
        name: getattr(defaults, name) for name in named
    }


def test_default_toml_shows_the_unset_settings_as_comments() -> None:
    text = (CONFIG / "default.toml").read_text(encoding="utf-8")
    for name in UNSET:
        assert f"\n# {name} = " in text


@pytest.mark.parametrize("name", ["development", "production", "test"])
def test_environment_files_name_only_what_differs(name: str) -> None:
    from event_router.settings import Settings

    settings = Settings(**config(name))
    defaults = Settings()
    for setting in config(name):
        assert getattr(settings, setting) != getattr(defaults, setting), setting


def test_streams_redis_is_durable_and_never_evicts() -> None:
    streams = directives("redis-streams")
    assert streams["appendonly"] == "yes"
    assert streams["appendfsync"] == "everysec"
    assert streams["maxmemory-policy"] == "noeviction"
    assert streams["timeout"] == "0"


def test_pubsub_redis_keeps_nothing_and_cuts_slow_subscribers_off() -> None:
    pubsub = directives("redis-pubsub")
    assert pubsub["appendonly"] == "no"
    assert pubsub["save"] == '""'
    assert pubsub["client-output-buffer-limit"].startswith("pubsub ")


def test_image_runs_unprivileged_without_the_embedded_server() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    final = dockerfile.split("\nFROM ")[-1]
    assert "\nUSER 10001:10001\n" in final
    assert '\nENTRYPOINT ["tini", "--", "event-router"]\nCMD ["run"]\n' in final
    assert "\nEXPOSE 8080\n" in final
    assert "RUN" not in final, "the final stage only copies"
    assert "/tini-static /usr/bin/tini\n" in final, "the first process passes signals on from the start"
    for label in ("title", "description", "licenses", "version", "revision", "created", "base.name"):
        assert f"org.opencontainers.image.{label}=" in final
    assert PREFIX not in dockerfile, "an image has no settings of its own"
    assert installs(dockerfile)
    for command in installs(dockerfile):
        assert "--require-hashes" in command or "--no-index" in command


def installs(dockerfile: str) -> list[str]:
    """The pip install commands of a Dockerfile, each on one line."""
    commands = dockerfile.replace("\\\n", " ").replace("&&", "\n").splitlines()
    return [command for command in commands if "pip" in command and " install " in command]


def test_image_is_built_from_what_its_context_holds() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert "*" in ignored
    assert copied == allowed
