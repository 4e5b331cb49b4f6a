"""Behind Sentinels: routers follow the primary, and state and acknowledgement survive or go together."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from tests.conftest import RouterFactory
from tests.environment.routers import Router
from tests.environment.sentinels import Watched
from tests.environment.servers import Server, ServerProgram
from tests.environment.streams import STREAMS, await_settled, entries
from tests.environment.waiting import eventually
from tests.integration.cli_calls import call
from tests.oracle.comparing import assert_equal
from tests.oracle.fold import fold
from tests.oracle.reading import Accepted
from tests.oracle.workload import Planned, Workload, publish

SETTINGS = {"STREAM_MIN_LENGTH": 1_000_000, "REDIS_TIMEOUT_S": 2}


def planned(count: int) -> list[Planned]:
    """Entries of which no two are alike: what becomes of repeated producers' ids is not the subject here."""
    entries = Workload(7, count, now_ms=time.time_ns() // 1_000_000).entries()
    return list({repr(entry): entry for entry in entries}.values())


def survivors(client: redis.Redis) -> list[Accepted]:
    """The entries that the primary holds, whatever was published."""
    return [
        Accepted(stream, entry_id.decode(), fields)
        for stream in STREAMS
        for entry_id, fields in entries(client, stream)
    ]


def assert_counted_as_survived(server: Server) -> list[Accepted]:
    """The state is the fold's of the entries that are there."""
    with server.client(decode_responses=False) as client:
        await_settled(client, within=20)
        found = survivors(client)
        assert_equal(fold(found), client)
        return found


def lose_the_primary_midway(watched: Watched, router: Router, blow: str) -> Server:
    """Publish on it, lose it, publish on the replica that replaces it: each counts once. Returns that one."""
    plan = planned(900)
    first, second = watched.servers
    with first.client(decode_responses=False) as client:
        publish(client, plan[:500])
        client.wait(1, 2_000)
    first.kill() if blow == "kill" else first.freeze()
    watched.await_primary(second, within=20)
    with second.client(decode_responses=False) as client:
        publish(client, plan[500:])
    assert len(assert_counted_as_survived(second)) == len(plan)
    eventually(lambda: router.readyz()[0] == 200, within=10)
    return second


@pytest.mark.parametrize(
    ("blow", "sentinels"),
    [
        pytest.param("kill", 1, marks=pytest.mark.once),
        pytest.param("kill", 3, marks=pytest.mark.battery),
        pytest.param("freeze", 3, marks=pytest.mark.battery),
    ],
)
def test_when_the_primary_is_lost_the_router_goes_on_with_the_replica(
    server_program: ServerProgram, new_router: RouterFactory, tmp_path: Path, blow: str, sentinels: int
) -> None:
    with Watched(server_program, tmp_path / "watched", sentinels=sentinels) as watched:
        router = new_router(watched.url, **SETTINGS).start()
        second = lose_the_primary_midway(watched, router, blow)
        assert sentinels_seen(watched) == {
            "streams: Sentinel 127.0.0.1:1 does not answer": "warning",
            **{f"streams: 127.0.0.1:{port} names 127.0.0.1:{second.port}": "ok" for port in watched.ports},
        }
        router.terminate()
        assert router.wait(10) == 0


@pytest.mark.battery
def test_a_planned_failover_rolls_state_and_acknowledgements_back_together(
    server_program: ServerProgram, new_router: RouterFactory, tmp_path: Path
) -> None:
    """For up to 10 s both are primaries, until the Sentinel tells the old one; what that took is lost."""
    plan = planned(6_000)
    with Watched(server_program, tmp_path / "watched") as watched:
        routers: list[Router] = [new_router(watched.url, pod, **SETTINGS).start() for pod in "ab"]
        first, second = watched.servers
        with first.client(decode_responses=False) as client:
            publish(client, plan[:3_000])
            watched.fail_over()
            publish(client, plan[3_000:4_000])
        watched.await_primary(second, within=15)
        with second.client(decode_responses=False) as client:
            publish(client, plan[4_000:])
        found = assert_counted_as_survived(second)
        assert len(plan) >= len(found) >= len(plan) - 4_000
        for router in routers:
            router.await_ready(within=15)


def sentinels_seen(watched: Watched) -> dict[str, str]:
    """The severity of what `doctor` says of each Sentinel."""
    found = call("doctor", "-o", "json", env={"REDIS_STREAMS_URL": watched.url}).rows[0]["findings"]
    return {
        one["what"].partition(": Error")[0]: one["severity"] for one in found if one["check"] == "sentinel"
    }


class WithUser(Watched):
    """Its Sentinels know a user who may do just what docs/security.md says."""

    @property
    def url(self) -> str:
        return f"{super().url}?sentinel_username=router&sentinel_password=secret"

    def sentinel_lines(self, port: int) -> str:
        return super().sentinel_lines(port) + "user router on >secret -@all +ping +sentinel|masters\n"


@pytest.mark.once
def test_of_sentinels_no_more_is_asked_than_their_user_may(
    server_program: ServerProgram, tmp_path: Path
) -> None:
    with WithUser(server_program, tmp_path / "watched") as watched:
        assert (
            sentinels_seen(watched)[
                f"streams: 127.0.0.1:{watched.ports[0]} names 127.0.0.1:{watched.servers[0].port}"
            ]
            == "ok"
        )
        assert call("status", env={"REDIS_STREAMS_URL": watched.url}).code == 0
        with watched.sentinel_client(watched.ports[0]) as sentinel:
            assert [one["object"] for one in sentinel.acl_log()] == []


@pytest.mark.battery
def test_a_sentinel_that_names_no_such_service_and_sentinels_that_are_frozen_are_said(
    server_program: ServerProgram, tmp_path: Path
) -> None:
    with Watched(server_program, tmp_path / "watched") as watched:
        env = {"REDIS_STREAMS_URL": watched.url.replace("mymaster", "other"), "REDIS_TIMEOUT_S": "0.5"}
        said = call("doctor", "-o", "json", env=env).out
        assert "watches no 'other', but mymaster" in said
        watched.stop_sentinels()
        try:
            called = call("doctor", "-o", "json", env=env)
        finally:
            watched.resume_sentinels()
        assert called.code == 1
        assert called.out.count("does not answer") == 2
