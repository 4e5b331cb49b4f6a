"""The generated pages are what the source says, and what they say is so."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from event_router.cli.docs import Form, documents
from event_router.core.decoding import Decoder
from event_router.core.event import Entry
from event_router.handler_loading import load_handlers
from event_router.settings import Settings, load, variable
from tests.integration.cli_calls import call, refusal

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EVENTS = (DOCS / "events.md").read_text(encoding="utf-8")
CONFIGURATION = (DOCS / "configuration.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but the defaults."""
    for name in [name for name in os.environ if name.startswith("EVENT_ROUTER_")]:
        monkeypatch.delenv(name)


def examples() -> list[list[str]]:
    """Every command that the page of events shows, in words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", EVENTS, re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("form", list(Form))
def test_committed_files_are_what_the_source_says(form: Form) -> None:
    for name, text in documents(form).items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, (
            f"run `event-router docs --format {form.value}`"
        )


@pytest.mark.parametrize("form", ["markdown", "asyncapi"])
def test_check_and_write(tmp_path: Path, form: str) -> None:
    options = ("docs", "--format", form, "-d", str(tmp_path))
    missing = refusal(call(*options, "--check"), 1)
    assert f"run `event-router docs --format {form}`" in missing
    assert call(*options).err.startswith("written: ")
    assert call(*options).err == "nothing has changed\n"
    assert call(*options, "--check").code == 0
    [changed, *_] = tmp_path.iterdir()
    changed.write_bytes(changed.read_bytes() + b"\xff")
    assert str(changed) in refusal(call(*options, "--check"), 1)
    assert call(*options).err == f"written: {changed.name}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(documents(Form(form)))


def test_places_that_cannot_be_written_or_compared(tmp_path: Path) -> None:
    assert "cannot be written" in refusal(call("docs", "-d", str(tmp_path / "nowhere")), 1)
    assert "--check compares files" in refusal(call("docs", "-d", "-", "--check"), 2)
    (tmp_path / "events.md").mkdir()
    assert "cannot be read" in refusal(call("docs", "-d", str(tmp_path)), 1)
    assert call("docs", "-d", "-").out == "".join(documents(Form.markdown).values())


def test_every_setting_has_its_line() -> None:
    lines = dict(re.findall(r"^\| `(EVENT_ROUTER_\w+)` \|(.*)\|$", CONFIGURATION, re.MULTILINE))
    assert list(lines) == [variable(name) for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        assert lines[variable(name)].endswith(f"| {field.description} ")
    assert "`60000` | integer, 1 to 86400000 |" in lines["EVENT_ROUTER_CLAIM_MIN_IDLE_MS"]
    assert "`dead-letter` | one of `dead-letter`, `ack` |" in lines["EVENT_ROUTER_UNKNOWN_EVENTS"]
    assert "`false` | `true` or `false` |" in lines["EVENT_ROUTER_EMBEDDED"]
    assert "list of `module:Class`" in lines["EVENT_ROUTER_HANDLERS"]


def test_every_event_has_its_section_and_every_field_its_row() -> None:
    registry = load_handlers(load())
    for domain in registry.domains:
        for event_type, route in registry.routes(domain).items():
            section = EVENTS.partition(f"### {domain} {event_type}\n")[2].partition("\n#")[0]
            assert section, f"{domain} {event_type}"
            rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|", section, re.MULTILINE)
            assert [name for name, _ in rows] == [name.decode() for name in _names(route.payload)]
            required = {name for name, needed in rows if needed == "yes"}
            assert {word.partition("=")[0] for word in _example(domain, event_type)[4:]} == required
            for alias in route.names[2:]:
                assert f"`{alias}`" in section


def _names(payload: object) -> list[bytes]:
    return [check[0] for check in payload._checks]  # type: ignore[attr-defined]


def _example(domain: str, event_type: str) -> list[str]:
    [found] = [words for words in examples() if words[2:4] == [domain, event_type]]
    return found


def test_every_example_is_an_event() -> None:
    decoder = Decoder(load_handlers(load()))
    assert len(examples()) == EVENTS.count("\n### ")
    for words in examples():
        assert words[:2] == ["event-router", "publish"]
        domain, event_type, *pairs = words[2:]
        flat = [part.encode() for pair in pairs for part in pair.split("=", 1)]
        entry = Entry(f"events:{domain}", "1767225600123-0", [b"type", event_type.encode(), *flat])
        _, event = decoder.decode(domain, entry)
        assert (event.domain, event.type) == (domain, event_type)


def test_shards_and_other_handlers_are_shown(tmp_path: Path) -> None:
    env = {"SHARDS": "chat=4", "STREAM_TEMPLATE": "{domain}:events:{shard}"}
    shown = call("docs", "-d", "-", env=env).out
    assert "Stream `chat:events:0` to `chat:events:3`, by ordering key, handled by" in shown
    assert "Stream `auth:events:0`, handled by" in shown
    assert "'nowhere'" in refusal(call("docs", "-d", "-", env={"HANDLERS": "nowhere:Handler"}), 2)


def test_the_example_of_the_configuration_shows_where_a_value_comes_from() -> None:
    [line] = re.findall(r"^```sh\n(.*)\n```$", CONFIGURATION, re.MULTILINE)
    assignment, program, *arguments = shlex.split(line)
    name, _, value = assignment.partition("=")
    assert program == "event-router"
    shown = call(*arguments, env={name.removeprefix("EVENT_ROUTER_"): value}).out
    assert re.search(rf"^{name} +{re.escape(value)} +environment variable$", shown, re.MULTILINE)
