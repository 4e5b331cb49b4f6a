"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.acceptance.workplace import Workplace
from tests.conftest import RouterFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture
def workplace(tmp_path: Path, new_router: RouterFactory, redis_client: redis.Redis) -> Workplace:
    """The misbehaving handlers, on the shared server."""
    return Workplace(tmp_path / "work", new_router, redis_client)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy before the shared server."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def permit(server: Server, redis_client: redis.Redis) -> Iterator[Callable[..., None]]:
    """Gives the user `limited` all commands on just these keys, at once also where it is connected."""

    def permit(*patterns: str) -> None:
        keys = [f"~{pattern}" for pattern in patterns]
        redis_client.execute_command(
            "ACL", "SETUSER", "limited", "on", ">secret", "+@all", "allchannels", "resetkeys", *keys
        )

    yield permit
    redis_client.execute_command("ACL", "DELUSER", "limited")
