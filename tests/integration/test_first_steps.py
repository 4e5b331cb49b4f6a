"""The README's first steps and its own handler, with real servers and the installed program."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import RouterFactory
from tests.environment.routers import environment, program
from tests.environment.servers import Server, free_port
from tests.environment.waiting import eventually
from tests.readme import README, ROOT, save_files


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """What `make run` starts, in an empty folder."""
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [program(), "run", "--embedded"],
            cwd=tmp_path,
            env=environment({"HTTP_PORT": port, "HTTP_HOST": "127.0.0.1"}),
            stdin=subprocess.DEVNULL,
            stderr=log,
            text=True,
        )
    yield process
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(10) == 0
    finally:
        process.kill()


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the program as the reader does in the second terminal."""
    return subprocess.run(
        [program(), *arguments],
        cwd=folder,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_first_steps(embedded: subprocess.Popen[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = json.loads(eventually(lambda: log.read_text().splitlines()[0], within=20))
    assert first["event"] == "embedded_server"
    assert first["use"] == "for development only"
    assert first["data_dir"] == str(tmp_path / ".event-router")
    assert embedded.poll() is None

    published = eventually(
        lambda: call(tmp_path, "publish", "auth", "login", "user_id=123").stdout, within=20
    )
    assert published.startswith("events:auth ")
    client = redis.Redis.from_url(first["url"], decode_responses=True)
    try:
        client.xadd("events:auth", {"type": "login", "user_id": "123"})  # the README's redis-cli line
        eventually(lambda: client.hget("state:user:123", "login_count") == "2", within=20)
    finally:
        client.close()
    shown = call(tmp_path, "state", "get", "user", "123", "--output", "json")
    assert json.loads(shown.stdout)["login_count"] == "2"


def test_own_handler_in_a_real_router(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, tmp_path: Path
) -> None:
    # The router runs in this folder; its handler is named in the settings, as the README says.
    save_files(tmp_path / "routers")
    assert "EVENT_ROUTER_HANDLERS=orders:OrderHandler" in README
    new_router(server.url, "a", HANDLERS="orders:OrderHandler").start()
    settings = {"REDIS_STREAMS_URL": server.url, "HANDLERS": "orders:OrderHandler"}
    done = subprocess.run(
        [program(), "publish", "orders", "paid", "customer_id=7", "cents=250"],
        cwd=tmp_path / "routers",
        env=environment(settings),
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    redis_client.xadd("events:orders", {"type": "paid", "customer_id": "7", "cents": "100"})
    redis_client.xadd("events:orders", {"type": "paid", "customer_id": "7", "cents": "many"})
    eventually(lambda: redis_client.hget("state:customer:7", "cents_spent") == "350", within=10)
    letters = eventually(lambda: redis_client.xrange("dlq:events:orders"), within=10)
    assert [fields["dlq_error"] for _, fields in letters] == ["field 'cents': expected `int`, got `str`"]


def test_own_handler_is_well_typed(tmp_path: Path) -> None:
    save_files(tmp_path)
    # With the project's own options, so that its cache serves.
    options = ("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "orders.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
