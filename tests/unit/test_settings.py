"""Settings: precedence, forms of lists, ranges, contradictions, and errors of one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from event_router.settings import Settings, SettingsError, load, sources

URL = "redis://user:hunter2@redis:6379/0"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any setting of ours; gives the means to set some."""
    for name in os.environ:
        if name.upper().startswith("EVENT_ROUTER_") or name == "POD_NAME":
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """Path of a configuration file to be written."""
    return tmp_path / "router.toml"


def test_defaults() -> None:
    settings = load()
    assert settings.group == "event-router-group"
    assert settings.streams("auth") == ("events:auth",)
    assert settings.redis_streams_url is None
    assert settings.shards == {}
    assert settings.handlers[0] == "handlers.auth:AuthEventHandler"


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_command_line_wins_over_environment_over_file(environment: pytest.MonkeyPatch, toml: Path) -> None:
    toml.write_text("group = 'file'\nread_count = 7\nmax_deliveries = 9\n")
    environment.setenv("EVENT_ROUTER_GROUP", "environment")
    environment.setenv("EVENT_ROUTER_READ_COUNT", "8")
    settings = load(toml, group="given", log_level=None)
    assert (settings.group, settings.read_count, settings.max_deliveries) == ("given", 8, 9)
    assert settings.log_level == "info"


def test_sources_name_where_each_value_comes_from(environment: pytest.MonkeyPatch, toml: Path) -> None:
    toml.write_text(f"redis_pubsub_url = '{URL}'\n")
    environment.setenv("EVENT_ROUTER_REDIS_STREAMS_URL", URL)
    found = {row.name: row for row in sources(toml, group="given")}
    assert {name: row.source for name, row in found.items() if row.source != "default"} == {
        "redis_streams_url": "environment variable",
        "redis_pubsub_url": "file",
        "group": "command line",
    }
    assert found["group"].variable == "EVENT_ROUTER_GROUP"
    assert "hunter2" not in repr(list(found.values()))
    assert found["redis_streams_url"].value == "redis://user:***@redis:6379/0"


def test_passwords_are_not_shown(environment: pytest.MonkeyPatch) -> None:
    settings = load(redis_streams_url=URL, operator_url=URL)
    assert settings.redis_streams_url == URL
    assert "hunter2" not in repr(settings) + str(settings)


@pytest.mark.parametrize("text", ["a:B,c.d:E", " a:B , c.d:E, ", '["a:B", "c.d:E"]'])
def test_lists_with_commas_or_as_json(environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("EVENT_ROUTER_HANDLERS", text)
    assert load().handlers == ("a:B", "c.d:E")


@pytest.mark.parametrize("text", ["chat=4,scan=2", '{"chat": 4, "scan": 2}'])
def test_shards_with_commas_or_as_json(environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("EVENT_ROUTER_SHARDS", text)
    assert load().shards == {"chat": 4, "scan": 2}


def test_one_shard_count_in_the_environment_keeps_the_others_of_the_file(
    environment: pytest.MonkeyPatch, toml: Path
) -> None:
    toml.write_text("[shards]\nchat = 2\nscan = 3\n")
    environment.setenv("EVENT_ROUTER_SHARDS__CHAT", "8")
    assert load(toml).shards == {"chat": 8, "scan": 3}
    environment.delenv("EVENT_ROUTER_SHARDS__CHAT")
    environment.setenv("EVENT_ROUTER_SHARDS", "chat=8")
    assert load(toml).shards == {"chat": 8}


def test_stream_names_of_a_sharded_domain() -> None:
    settings = load(shards={"chat": 2})
    assert settings.streams("chat") == ("events:chat:0", "events:chat:1")
    assert settings.streams("auth") == ("events:auth",)
    other = load(stream_template="{domain}:events:{shard}", shards="chat=2")
    assert other.streams("chat") == ("chat:events:0", "chat:events:1")
    assert other.streams("auth") == ("auth:events:0",)


def test_consumer_name(environment: pytest.MonkeyPatch) -> None:
    assert load().consumer_name == f"consumer-{socket.gethostname()}-{os.getpid()}"
    environment.setenv("POD_NAME", "router-7")
    assert load().consumer_name == "consumer-router-7"
    assert load(consumer="mine").consumer_name == "mine"


def test_an_empty_variable_is_unset(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EVENT_ROUTER_REDIS_STREAMS_URL", "")
    environment.setenv("EVENT_ROUTER_READ_COUNT", "")
    assert load().redis_streams_url is None
    assert load().read_count == 500


def test_the_strongest_source_chooses_the_server(environment: pytest.MonkeyPatch, toml: Path) -> None:
    environment.setenv("EVENT_ROUTER_REDIS_STREAMS_URL", URL)
    assert load(embedded=True).redis_streams_url is None
    toml.write_text("embedded = true\n")
    assert load(toml).embedded is False
    environment.delenv("EVENT_ROUTER_REDIS_STREAMS_URL")
    assert load(toml).embedded is True
    assert load(toml, redis_streams_url=URL).embedded is False
    environment.setenv("EVENT_ROUTER_EMBEDDED", "false")
    assert load(toml).embedded is False


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().group = "other"


WRONG = [
    ({"READ_COUNT": "abc"}, ["EVENT_ROUTER_READ_COUNT", "'abc'", "integer", "500"]),
    ({"READ_COUNT": "0"}, ["EVENT_ROUTER_READ_COUNT", "greater than or equal to 1"]),
    ({"COMMIT_MAX_EVENTS": "501"}, ["EVENT_ROUTER_COMMIT_MAX_EVENTS", "500"]),
    ({"REDIS_TIMEOUT_S": "nan"}, ["EVENT_ROUTER_REDIS_TIMEOUT_S", "finite"]),
    ({"HTTP_PORT": "70000"}, ["EVENT_ROUTER_HTTP_PORT", "65535"]),
    ({"RETRY_FACTOR": "0.5"}, ["EVENT_ROUTER_RETRY_FACTOR"]),
    ({"LOG_FORMAT": "xml"}, ["EVENT_ROUTER_LOG_FORMAT", "console"]),
    ({"UNKNOWN_EVENTS": "drop"}, ["EVENT_ROUTER_UNKNOWN_EVENTS", "dead-letter"]),
    ({"EMBEDDED": "maybe"}, ["EVENT_ROUTER_EMBEDDED", "boolean"]),
    ({"GROUP": "a\nb"}, ["EVENT_ROUTER_GROUP", "control"]),
    ({"HANDLERS": "[bad"}, ["EVENT_ROUTER_HANDLERS", "JSON"]),
    ({"HANDLERS": "handlers.auth"}, ["EVENT_ROUTER_HANDLERS", "module:Class"]),
    ({"HANDLERS": "a:B,a:B"}, ["EVENT_ROUTER_HANDLERS", "twice"]),
    ({"DOMAINS": "a:b"}, ["EVENT_ROUTER_DOMAINS", "'a:b'"]),
    ({"SHARDS": "chat"}, ["EVENT_ROUTER_SHARDS", "chat=4"]),
    ({"SHARDS": "chat=1,chat=2"}, ["EVENT_ROUTER_SHARDS", "repeated"]),
    ({"SHARDS__CHAT": "0"}, ["EVENT_ROUTER_SHARDS", "chat", "greater"]),
    ({"STREAM_TEMPLATE": "events"}, ["EVENT_ROUTER_STREAM_TEMPLATE", "lacks {domain}"]),
    ({"STREAM_TEMPLATE": "{domain}:{tenant}"}, ["EVENT_ROUTER_STREAM_TEMPLATE", "{tenant}"]),
    ({"STREAM_TEMPLATE": "{domain"}, ["EVENT_ROUTER_STREAM_TEMPLATE", "braces"]),
    ({"STREAM_TEMPLATE": "{domain!r}"}, ["EVENT_ROUTER_STREAM_TEMPLATE", "placeholder"]),
    ({"STREAM_TEMPLATE": "dlq:{domain}"}, ["EVENT_ROUTER_STREAM_TEMPLATE", "dlq:"]),
    ({"STREAM_TEMPLATE": "a b:{domain}"}, ["EVENT_ROUTER_STREAM_TEMPLATE", "spaces"]),
    ({"JOB_STATE_TEMPLATE": "{domain}:state"}, ["EVENT_ROUTER_JOB_STATE_TEMPLATE", "lacks {job_id}"]),
    ({"JOB_CHANNEL_TEMPLATE": "sse"}, ["EVENT_ROUTER_JOB_CHANNEL_TEMPLATE", "lacks {job_id}"]),
    ({"STATE_PREFIX": "stats"}, ["EVENT_ROUTER_STATE_PREFIX", "'stats'"]),
    ({"REDIS_STREAMS_URL": "http://u:hunter2@h"}, ["EVENT_ROUTER_REDIS_STREAMS_URL", "redis://"]),
    ({"RETRY_BACKOFF_MS": "70000"}, ["EVENT_ROUTER_RETRY_BACKOFF_MS", "EVENT_ROUTER_CLAIM_MIN_IDLE_MS"]),
    ({"PRESENCE_LAST_SEEN_S": "59"}, ["EVENT_ROUTER_PRESENCE_LAST_SEEN_S", "EVENT_ROUTER_PRESENCE_TTL_S"]),
    (
        {"EMBEDDED": "1", "REDIS_STREAMS_URL": URL},
        ["EVENT_ROUTER_EMBEDDED", "EVENT_ROUTER_REDIS_STREAMS_URL"],
    ),
    ({"CLAIM_MIN_IDEL_MS": "1"}, ["EVENT_ROUTER_CLAIM_MIN_IDEL_MS", "EVENT_ROUTER_CLAIM_MIN_IDLE_MS"]),
    ({"GROUP__NAME": "1"}, ["EVENT_ROUTER_GROUP__NAME"]),
    ({"SERVICE_HOST": "10.0.0.1"}, ["EVENT_ROUTER_SERVICE_HOST", "enableServiceLinks"]),
]


@pytest.mark.parametrize(
    ("variables", "named"), WRONG, ids=[",".join(v) + "=" + ",".join(v.values()) for v, _ in WRONG]
)
def test_a_wrong_setting_is_one_line_that_names_it(
    environment: pytest.MonkeyPatch, variables: dict[str, str], named: list[str]
) -> None:
    for name, value in variables.items():
        environment.setenv(f"EVENT_ROUTER_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in named if word not in message] == []
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (
            "raed_count = 3",
            ["raed_count", "router.toml", "the nearest is read_count: correct the name or remove it"],
        ),
        ("EVENT_ROUTER_HTTP_PROT = 1", ["EVENT_ROUTER_HTTP_PROT in ", "the nearest is http_port:"]),
        ("colour = 1", ["colour in ", "router.toml is no setting; remove it"]),
        ("read_count = 'x'", ["EVENT_ROUTER_READ_COUNT", "router.toml"]),
        ("read_count =", ["router.toml", "TOML"]),
        ("[shards]\nchat = 0", ["EVENT_ROUTER_SHARDS", "chat", "router.toml"]),
    ],
)
def test_a_wrong_file_is_named(toml: Path, content: str, named: list[str]) -> None:
    toml.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load(toml)
    assert "\n" not in str(caught.value)
    assert [word for word in named if word not in str(caught.value)] == []


def test_a_file_that_is_not_there_is_named(toml: Path) -> None:
    with pytest.raises(SettingsError, match=r"router\.toml cannot be read"):
        load(toml)


def test_an_unknown_override_is_refused() -> None:
    wrong: dict[str, Any] = {"gruop": "x"}
    with pytest.raises(SettingsError, match="the nearest is group:"):
        load(**wrong)
