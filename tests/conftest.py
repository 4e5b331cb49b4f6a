"""Fixtures shared by the integration and acceptance tests.

Environment:
    TEST_SERVERS       which servers to run on, by commas; default `valkey,redis` (both)
    TEST_REDIS_SERVER  a redis-server binary instead of the one on the PATH
    TEST_EVENT_ROUTER  the program under test instead of the one beside this Python
    CI=true            a server that is missing fails the run instead of skipping its tests
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import redis
import structlog

from tests.environment.routers import Router
from tests.environment.servers import Server, ServerProgram, flush, installed_programs

RouterFactory = Callable[..., Router]
ServerFactory = Callable[..., Server]


@pytest.fixture(autouse=True)
def unconfigured_logs() -> Iterator[None]:
    """Leave logging as it was: what one test sets up must not filter the lines of the next."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "once: its subject is the same on any server, so the first one suffices"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [
        item for item in items if item.get_closest_marker("once") and _server_of(item) in OTHER_SERVERS
    ]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def _server_of(item: pytest.Item) -> str:
    return (
        str(item.callspec.params.get("server_program", ""))
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else ""
    )


def _servers_to_run_on() -> list[str]:
    return [
        name.strip() for name in os.environ.get("TEST_SERVERS", "valkey,redis").split(",") if name.strip()
    ]


OTHER_SERVERS = _servers_to_run_on()[1:]


@pytest.fixture(scope="session", params=_servers_to_run_on())
def server_program(request: pytest.FixtureRequest) -> ServerProgram:
    """The server program a test runs on: every test that asks for a server runs once on each."""
    program = installed_programs().get(request.param)
    if program is None:
        pytest.fail(f"TEST_SERVERS names {request.param!r}; known are {', '.join(installed_programs())}")
    if program.path is None:
        reason = f"no {request.param} server is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@pytest.fixture(scope="session")
def shared_server(
    server_program: ServerProgram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One running server a session and program, without persistence. Tests ask for `server` instead."""
    server = Server(server_program, tmp_path_factory.mktemp(server_program.name))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The shared server, emptied. Do not stop, freeze or reconfigure it: take `new_server` for that."""
    flush(shared_server)
    return shared_server


@pytest.fixture
def redis_client(server: Server) -> Iterator[redis.Redis]:
    """A client of `server` that answers in text."""
    with server.client() as client:
        yield client


@pytest.fixture
def redis_bytes(server: Server) -> Iterator[redis.Redis]:
    """A client of `server` that answers in bytes."""
    with server.client(decode_responses=False) as client:
        yield client


@pytest.fixture
def new_server(server_program: ServerProgram, tmp_path: Path) -> Iterator[ServerFactory]:
    """Makes servers to kill, freeze or configure: `new_server(append_only=True, options=[…]).start()`."""
    made: list[Server] = []

    def make(**kwargs: object) -> Server:
        made.append(Server(server_program, tmp_path / f"server-{len(made)}", **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def new_router(tmp_path: Path) -> Iterator[RouterFactory]:
    """Makes routers: `new_router(server.url, "a", READ_COUNT=10).start()`, settings without their prefix.

    `variables` are environment variables of its own handlers.
    At the end all are killed and their logs printed (pytest shows them when the test failed); every line of
    them must be JSON.
    """
    made: list[Router] = []

    def make(
        streams_url: str,
        pod: str | None = "a",
        *,
        variables: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Router:
        made.append(Router(tmp_path / "routers", streams_url, pod, settings, variables or {}))
        return made[-1]

    yield make
    for router in made:
        router.kill()
    for router in made:
        print(f"--- {router!r}\n{router.log_tail()}")
    for router in made:
        router.all_logs()
