"""Redis goes away, or refuses: the router waits and goes on, and nobody's event pays for it."""

from __future__ import annotations

import time

import pytest

from tests.conftest import RouterFactory, ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.routers import Router
from tests.environment.streams import await_settled, held_by
from tests.environment.waiting import eventually
from tests.oracle.comparing import assert_equal
from tests.oracle.fold import fold
from tests.oracle.workload import Workload, publish

LOUD = ("warning", "error", "critical")


def loud(router: Router) -> list[str]:
    """What it said at warning and above about Redis."""
    return [str(line) for line in router.log() if line["level"] in LOUD and "edis" in str(line)]


@pytest.mark.parametrize("seed", [21])
def test_redis_killed_and_started_again_with_its_data(
    new_server: ServerFactory, new_router: RouterFactory, seed: int
) -> None:
    server = new_server(append_only=True).start()
    routers = [new_router(server.url, pod).start() for pod in "ab"]
    planned = Workload(seed, 6_000, now_ms=time.time_ns() // 1_000_000).entries()
    accepted = []
    for part in range(3):
        with server.client(decode_responses=False) as client:
            accepted += publish(client, planned[part * 2_000 : (part + 1) * 2_000])
            if part == 2:
                break
            eventually(lambda: any(held_by(client, r.consumer) for r in routers), within=5, every=0.001)
        server.kill()
        eventually(lambda: all(router.readyz()[0] == 503 for router in routers), within=5)
        server.start()
        eventually(lambda: all(router.readyz()[0] == 200 for router in routers), within=12)
    with server.client(decode_responses=False) as client:
        await_settled(client, within=20)
        assert_equal(fold(accepted), client)


@pytest.mark.once
def test_an_outage_is_two_lines_and_no_hot_loop(new_server: ServerFactory, new_router: RouterFactory) -> None:
    server = new_server(append_only=True).start()
    with Proxy(server.port) as proxy:
        router = new_router(proxy.url).start()
        assert loud(router) == []
        server.kill()
        eventually(lambda: router.readyz()[0] == 503, within=5)
        counts = []
        for _ in range(2):
            # The length of the outage is the test's subject: at first the pauses grow, then they are long.
            accepted, begin = proxy.accepted, time.monotonic()
            while time.monotonic() - begin < 4:
                assert router.get("/livez")[0] == 200
                time.sleep(0.1)
            counts.append(proxy.accepted - accepted)
        assert counts[0] <= 40
        assert 1 <= counts[1] <= 12, "about two a second"
        assert len(loud(router)) == 1, loud(router)
        server.start()
        eventually(lambda: router.readyz()[0] == 200, within=5)
        assert len(loud(router)) <= 2, loud(router)
        with server.client() as client:
            client.xadd("events:auth", {"type": "login", "user_id": "u"})
            await_settled(client, within=5)
            assert client.hget("state:user:u", "login_count") == "1"


@pytest.mark.once
def test_a_frozen_redis_is_an_outage_like_any_other(
    new_server: ServerFactory, new_router: RouterFactory
) -> None:
    server = new_server().start()
    router = new_router(server.url, REDIS_TIMEOUT_S=1, READ_BLOCK_MS=500).start()
    with server.client() as client:
        for _ in range(200):
            client.xadd("events:auth", {"type": "login", "user_id": "u"})
        server.freeze()
        eventually(lambda: router.readyz()[0] == 503, within=5)
        assert router.get("/livez")[0] == 200
        server.thaw()
        eventually(lambda: router.readyz()[0] == 200, within=5)
        await_settled(client, within=8)
        assert client.hget("state:user:u", "login_count") == "200"


@pytest.mark.once
def test_pubsub_is_down_with_the_server_it_shares_and_up_again_after(
    new_server: ServerFactory, new_router: RouterFactory
) -> None:
    server = new_server(append_only=True).start()
    router = new_router(server.url).start()

    def pubsub() -> tuple[bool, float | None]:
        return router.readyz()[1]["pubsub"]["up"], router.metric("redis_connected", role="pubsub")

    def all_lead() -> bool:
        return set(router.readyz()[1]["relays"].values()) == {"leads"}

    eventually(lambda: pubsub() == (True, 1.0) and all_lead(), within=5)
    said = len(router.log())
    for _ in range(2):
        server.kill()
        eventually(lambda: pubsub() == (False, 0.0), within=5, what=pubsub)
        assert router.readyz()[1]["pubsub"]["error"]
        server.start()
        eventually(lambda: pubsub() == (True, 1.0) and all_lead(), within=5, what=pubsub)
    # One line at the begin of an outage and one at its end, and none of relays.
    assert [line["event"] for line in router.log()[said:]] == ["redis_unavailable", "redis_available"] * 2
