"""An operator's day: the commands beside running routers, each as the user it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.users import refusals, rules, sign_up, url_for
from tests.conftest import RouterFactory, ServerFactory
from tests.environment.routers import Router
from tests.environment.servers import Server
from tests.environment.streams import await_settled, group_state
from tests.environment.waiting import eventually
from tests.integration.cli_calls import Called, call

AUTH = "events:auth"
ROUTER, OPERATOR = "event-router", "event-router-operator"

Command = Callable[..., Called]


@pytest.fixture
def walled(new_server: ServerFactory, tmp_path: Path) -> Server:
    """A server with the users of the router and the operator."""
    server = new_server().start()
    with server.client() as client:
        sign_up(client, rules("router", "operator", folder=tmp_path, settings={}))
        client.execute_command("ACL", "LOG", "RESET")
    return server


@pytest.fixture
def command(walled: Server) -> Command:
    """Calls a command with what a router's pod has in its environment."""
    env = {
        "REDIS_STREAMS_URL": url_for(walled, ROUTER),
        "OPERATOR_URL": url_for(walled, OPERATOR),
        "STREAM_MIN_LENGTH": "0",
        "READ_BLOCK_MS": "300",
    }
    return lambda *arguments: call(*arguments, "-o", "json", env=env)


def started(walled: Server, new_router: RouterFactory, pod: str) -> Router:
    """A ready router that keeps what is settled."""
    return new_router(url_for(walled, ROUTER), pod, READ_BLOCK_MS=300).start()


@pytest.mark.once
def test_a_group_is_reset_beside_running_routers(
    walled: Server, new_router: RouterFactory, command: Command
) -> None:
    routers = [started(walled, new_router, pod) for pod in "ab"]
    with walled.client() as client:
        ids = [str(client.xadd(AUTH, {"type": "login", "user_id": "7"})) for _ in range(100)]
        await_settled(client, [AUTH], within=10)
        reset = ("group", "reset", AUTH, "--to", ids[60], "--yes")
        refused = command(*reset)
        assert (refused.code, "active in event-router-group" in refused.err) == (1, True)
        assert command("pause", AUTH, "--reason", "reset").code == 0
        eventually(lambda: all(AUTH in router.readyz()[1]["paused"] for router in routers), within=5)
        client.xadd(AUTH, {"type": "login", "user_id": "7"})
        done = eventually(lambda: (tried := command(*reset)).code == 0 and tried, within=10)
        [row] = done.rows
        assert (row["handled_again"], row["counted_twice_at_most"], row["applied"]) == (40, 40, True)
        assert client.hget("state:user:7", "login_count") == "100"
        [explained] = command("explain", AUTH, ids[62]).rows
        assert (explained["state"], explained["entries_before"]) == ("undelivered", 2)
        assert command("resume", AUTH).code == 0
        await_settled(client, [AUTH], within=10)
        assert client.hget("state:user:7", "login_count") == "141"
        assert command("explain", AUTH, ids[62]).rows[0]["state"] == "settled"
        eventually(lambda: group_state(client, AUTH)["lag"] == 0, within=5)
        assert refusals(client) == []


@pytest.mark.once
def test_the_others_need_no_more_than_their_users_may(
    walled: Server, new_router: RouterFactory, command: Command
) -> None:
    router = started(walled, new_router, "a")
    with walled.client() as client:
        client.xadd(AUTH, {"type": "nothing"})
        good = str(client.xadd(AUTH, {"type": "login", "user_id": "7"}))
        await_settled(client, [AUTH], within=10)
        bad = str(client.xrange(AUTH)[0][0])
        assert command("explain", AUTH, good).rows[0]["state"] == "settled"
        assert command("explain", AUTH, bad).rows[0]["dead_letter"]["reason"] == "unknown_type"
        assert command("retention", "--apply").code == 0
        [row] = [row for row in command("consumers", "list").rows if row["stream"] == AUTH]
        assert row["consumer"] == router.consumer
        assert command("status").code == 0
        router.kill()
        assert command("consumers", "remove", AUTH, router.consumer).code == 0
        assert command("consumers", "list", AUTH).rows == []
        assert refusals(client) == []
