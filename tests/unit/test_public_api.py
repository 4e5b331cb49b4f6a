"""What `import event_router` gives, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import event_router

# What a handler's module must not have to wait for.
HEAVY = {"aiohttp", "asyncio", "hiredis", "prometheus_client", "pydantic", "redis", "structlog", "uvloop"}


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after a statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_handlers_are_written_without_importing_a_client_or_server() -> None:
    assert not imported_by("import event_router") & HEAVY


def test_handlers_are_loaded_without_importing_the_router() -> None:
    loaded = imported_by("import event_router.handler_loading, handlers.auth, handlers.chat")
    assert not loaded & (HEAVY - {"asyncio"})


@pytest.mark.parametrize("name", ["EventRouter", "StateKVStore", "StreamConsumer"])
def test_what_talks_to_redis_is_imported_when_it_is_asked_for(name: str) -> None:
    assert "redis" in imported_by(f"from event_router import {name}")


def test_every_public_name_is_there() -> None:
    for name in event_router.__all__:
        assert getattr(event_router, name).__name__, name
    assert set(event_router.__all__) <= set(dir(event_router))


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match=r"^module 'event_router' has no attribute 'Routers'$"):
        event_router.Routers  # type: ignore[attr-defined]  # noqa: B018
