"""`event-router doctor` on real servers: each trouble has its finding, and nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from event_router.core.keys import KeyNames
from event_router.core.permissions import Places, operator_grants, router_grants
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.permissions import missing_permissions
from tests.acceptance.users import PASSWORD, refusals, rules, sign_up, url_for
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.servers import Server, free_port
from tests.environment.streams import GROUP
from tests.integration.cli_calls import Called, call, refusal

AUTH = "events:auth"
ROUTER, OPERATOR = "event-router", "event-router-operator"


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    return {"REDIS_STREAMS_URL": server.url}


@pytest.fixture
def users(redis_client: redis.Redis, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The three users on the shared server; their rules by name."""
    made = rules("router", "relay", "operator", folder=tmp_path)
    sign_up(redis_client, made)
    yield made
    for name in made:
        redis_client.execute_command("ACL", "DELUSER", name)


def findings(called: Called) -> list[dict[str, Any]]:
    """What it found, without what is good and without the missing append-only file of the test's server."""
    [answer] = called.rows
    assert called.code == (0 if answer["good"] else 1)
    return [
        found
        for found in answer["findings"]
        if found["severity"] != "ok" and "append-only" not in found["what"]
    ]


def doctor(env: Mapping[str, str], **more: str) -> list[dict[str, Any]]:
    return findings(call("doctor", "-o", "json", env={**env, **more}))


def bad(env: Mapping[str, str], **more: str) -> list[tuple[str, str]]:
    """Severity and check of everything worse than a note."""
    found = doctor(env, **more)
    assert all(one["remedy"] for one in found if one["severity"] != "note")
    return [(one["severity"], one["check"]) for one in found if one["severity"] != "note"]


def test_a_good_server_gives_exit_code_0(new_server: ServerFactory) -> None:
    server = new_server(append_only=True).start()
    with server.client() as client:
        for domain in ("auth", "chat", "scan", "info"):
            client.xgroup_create(f"events:{domain}", GROUP, id="0", mkstream=True)
        before = client.info("commandstats")
        called = call("doctor", env={"REDIS_STREAMS_URL": server.url})
        wrote = {name for name in client.info("commandstats") if name not in before}
    assert called.code == 0
    assert "warning" not in called.out
    assert not wrote & {"cmdstat_set", "cmdstat_hset", "cmdstat_xadd", "cmdstat_xtrim", "cmdstat_del"}


def test_no_append_only_file_is_a_warning(env: Mapping[str, str]) -> None:
    assert call("doctor", "--fail-on", "warning", env=env).code == 1
    assert call("doctor", env=env).code == 0
    assert "appendonly yes" in call("doctor", env=env).out


def test_eviction_and_little_memory_are_found(new_server: ServerFactory) -> None:
    server = new_server(options=["--maxmemory-policy", "allkeys-lru"]).start()
    with server.client() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
        found = {one["check"]: one for one in doctor({"REDIS_STREAMS_URL": server.url})}
    assert found["eviction"]["severity"] == "error"
    assert "noeviction" in found["eviction"]["remedy"]
    assert "maxmemory" in found["memory"]["what"]


@pytest.mark.once
def test_cluster_replica_and_old_servers_are_refused(new_server: ServerFactory) -> None:
    cluster = new_server(options=["--cluster-enabled", "yes", "--cluster-port", str(free_port())]).start()
    assert ("error", "version") in bad({"REDIS_STREAMS_URL": cluster.url})
    replica = new_server(options=["--replicaof", f"127.0.0.1 {cluster.port}"]).start()
    assert ("error", "primary") in bad({"REDIS_STREAMS_URL": replica.url})


def test_streams_nobody_handles_are_found(env: Mapping[str, str], redis_client: redis.Redis) -> None:
    redis_client.xadd(AUTH, {"type": "login"})
    redis_client.xadd("events:chat:3", {"type": "message_sent"})
    redis_client.xadd("events:unserved", {"type": "x"})
    redis_client.set("outbox:scan", "x")
    redis_client.xadd(f"dlq:{AUTH}", {"type": "x"})
    redis_client.xgroup_create("events:info", GROUP, id="0", mkstream=True)
    redis_client.xadd("events:info", {"type": "x"})
    redis_client.xreadgroup(GROUP, "consumer-gone", {"events:info": ">"})
    redis_client.xadd("events:info", {"type": "y"})
    quick = {
        "CLAIM_MIN_IDLE_MS": "1",
        "READ_BLOCK_MS": "1",
        "RETRY_BACKOFF_MS": "1",
        "REDIS_TIMEOUT_S": "0.0005",
    }
    time.sleep(0.005)  # the consumer's silence is the subject
    found = doctor(env, **(quick | {"REDIS_TIMEOUT_S": "5"}))
    said = "\n".join(one["what"] for one in found)
    assert "events:auth holds entries (1) and has no group" in said
    assert "events:chat:3 is not read" in said
    assert "events:unserved" not in said
    assert "outbox:scan is a string, not a stream" in said
    assert "consumer-gone holds pending entries (1)" in said
    assert "no consumer is alive" in said
    assert "CLAIM_MIN_IDLE_MS = 1 is not above REDIS_TIMEOUT_S" in said


def test_a_paused_stream_is_said(env: Mapping[str, str], redis_client: redis.Redis) -> None:
    redis_client.set(f"event-router:pause:{GROUP}:{AUTH}", "migration")
    [found] = [one for one in doctor(env) if one["check"] == "pause"]
    assert found["what"] == f"{AUTH} is paused: migration"
    assert f"resume {AUTH}" in found["remedy"]


def test_a_stream_of_a_wrong_type_is_named_and_the_others_are_looked_at(
    env: Mapping[str, str], redis_client: redis.Redis
) -> None:
    redis_client.set(AUTH, "x")
    redis_client.xadd(f"dlq:{AUTH}", {"type": "x"})
    redis_client.set("dlq:events:chat", "x")
    redis_client.xadd("events:chat", {"type": "x"})
    found = [one["what"] for one in doctor(env) if one["severity"] == "error"]
    assert found[:2] == [f"{AUTH} is a string, not a stream", "dlq:events:chat is a string, not a stream"]
    assert any("events:chat holds entries" in what for what in found)


def test_each_role_that_cannot_be_reached_is_named_without_its_password(server: Server) -> None:
    nowhere = "redis://user:hunter2@127.0.0.1:1/0"
    called = call("doctor", "-o", "json", env={"REDIS_STREAMS_URL": nowhere, "OPERATOR_URL": server.url})
    assert "hunter2" not in called.out
    [found] = findings(called)
    assert found["what"].startswith("streams: redis://user:***@127.0.0.1:1/0: ")
    assert "EVENT_ROUTER_REDIS_STREAMS_URL" in found["remedy"]
    others = doctor({"REDIS_STREAMS_URL": server.url}, REDIS_PUBSUB_URL=nowhere, OPERATOR_URL=nowhere)
    assert [one["what"].partition(":")[0] for one in others if one["check"] == "connection"] == [
        "pubsub",
        "operator",
    ]


def test_sentinels_that_do_not_answer_are_named_each(env: Mapping[str, str], server: Server) -> None:
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{server.port}/mymaster"
    found = doctor({"REDIS_STREAMS_URL": url})
    said = [(one["check"], one["what"]) for one in found]
    assert said[0][0] == said[1][0] == "sentinel"
    assert "Sentinel 127.0.0.1:1 does not answer" in said[0][1]
    assert f"127.0.0.1:{server.port}" in said[1][1]
    assert [check for check, _ in said] == ["sentinel", "sentinel", "connection"]
    assert len(said[2][1]) < 250


def test_a_server_that_is_frozen_does_not_hold_it_up(new_server: ServerFactory) -> None:
    server = new_server().start()
    server.freeze()
    try:
        [found] = doctor({"REDIS_STREAMS_URL": server.url}, REDIS_TIMEOUT_S="0.2")
    finally:
        server.thaw()
    assert found["check"] == "connection"


def test_a_server_that_goes_while_it_is_examined_is_one_finding(server: Server) -> None:
    with Proxy(server.port) as proxy:
        proxy.drop_reply("EVAL")
        [found] = doctor({"REDIS_STREAMS_URL": proxy.url})
    assert (found["severity"], found["check"]) == ("error", "streams")
    assert proxy.url in found["what"]


def test_the_operators_url_must_be_the_same_server(server: Server, new_server: ServerFactory) -> None:
    other = new_server().start()
    assert ("error", "operator") in bad({"REDIS_STREAMS_URL": server.url}, OPERATOR_URL=other.url)
    assert ("error", "operator") not in bad({"REDIS_STREAMS_URL": server.url}, OPERATOR_URL=server.url)


def test_users_with_their_rules_lack_nothing(
    server: Server, redis_client: redis.Redis, users: dict[str, str]
) -> None:
    redis_client.xadd("events:chat:3", {"type": "x"})
    env = {"REDIS_STREAMS_URL": url_for(server, ROUTER)}
    called = call("doctor", "-o", "json", env=env)
    assert f"user {ROUTER} may do all" in called.out
    assert "events:chat:3 is not read" in called.out
    both = env | {
        "OPERATOR_URL": url_for(server, OPERATOR),
        "REDIS_PUBSUB_URL": url_for(server, "event-router-relay"),
    }
    called = call("doctor", "-o", "json", env=both)
    assert "events:chat:3 is not read" in called.out
    assert f"user {OPERATOR} may do all" in called.out
    assert "event-router-relay may not ask" in called.out
    noticed = [said for said in refusals(redis_client) if "relay" not in said and "scan" not in said]
    assert noticed == []


@pytest.mark.parametrize(
    ("less", "said"),
    [
        (" +xtrim", f"may not run xtrim on {AUTH}"),
        (" +hincrby", "may not run hincrby on "),
        (" ~outbox:*", "(fan-out logs)"),
        (" ~event-router:checkpoint:*", "(settled checkpoints)"),
        (" +publish", "may not run publish on "),
        (" +client|id", "may not run client id (connections)"),
        (" +evalsha", f"may not run evalsha on {AUTH}"),
    ],
)
def test_a_permission_that_is_missing_is_named(
    server: Server, redis_client: redis.Redis, users: dict[str, str], less: str, said: str
) -> None:
    rule = (
        users[ROUTER]
        .replace("(~outbox:*", "(~x ~outbox:*")
        .replace("(~event-router:ch", "(~x ~event-router:ch")
    )
    assert less in rule
    redis_client.execute_command(*rule.replace(less, " ").split())
    found = [
        one for one in doctor({"REDIS_STREAMS_URL": url_for(server, ROUTER)}) if one["check"] == "permissions"
    ]
    assert said in "\n".join(one["what"] for one in found)
    assert all("event-router acl" in one["remedy"] for one in found)


async def test_every_grant_that_is_taken_away_is_missed(
    server: Server, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """With ACL DRYRUN and in a script alike."""
    grants = router_grants(Places.of(KeyNames()), publishes=True)
    redis_client.execute_command(
        "ACL",
        "SETUSER",
        "u",
        "reset",
        "on",
        f">{PASSWORD}",
        "+eval",
        "+evalsha",
        "+client|setname",
        "~a",
        "&a",
    )
    link = Link(parse_url(url_for(server, "u")), timeout_s=5, name="x")
    try:
        in_script = await missing_permissions(link, grants, "u")
        redis_client.execute_command("ACL", "SETUSER", "u", "-eval", "-evalsha", "+acl|dryrun")
        by_dry_run = await missing_permissions(link, grants, "u")
    finally:
        await link.close()
        redis_client.execute_command("ACL", "DELUSER", "u")
    asked = sum(len(grant.commands) * max(1, len(grant.keys) + len(grant.channels)) for grant in grants)
    asked -= 1  # CLIENT SETNAME, which the user has
    assert len(by_dry_run) == asked
    assert in_script == by_dry_run
    assert operator_grants(Places.of(KeyNames()))


def test_a_user_that_may_not_even_ask(
    server: Server, redis_client: redis.Redis, users: dict[str, str]
) -> None:
    rule = users[ROUTER].replace("+eval ", "").replace("+evalsha", "+xlen")
    redis_client.execute_command(*rule.split())
    found = [
        one for one in doctor({"REDIS_STREAMS_URL": url_for(server, ROUTER)}) if one["check"] == "permissions"
    ]
    assert [one["severity"] for one in found] == ["error"]
    assert "neither EVAL nor ACL DRYRUN" in found[0]["what"]


def test_a_wrong_password_is_one_finding(server: Server, users: dict[str, str]) -> None:
    url = url_for(server, ROUTER).replace(PASSWORD, "wrong-one")
    [found] = doctor({"REDIS_STREAMS_URL": url})
    assert "WRONGPASS" in found["what"]
    assert "wrong-one" not in found["what"]


def test_clocks_that_differ_are_found(
    server: Server, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr("event_router.cli.examination.time.time", lambda: now() - 3600)
    found = [one["what"] for one in doctor(env) if one["check"] == "clock"]
    assert len(found) == 1
    assert "ahead of" in found[0]


def test_a_wrong_setting_is_exit_code_2() -> None:
    assert "CLAIM_MIN_IDLE_MS" in refusal(call("doctor", env={"CLAIM_MIN_IDEL_MS": "1"}), 2)
