"""`event-router consumers` and `retention`: who holds what, and what holds up trimming."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import redis

from event_router.redis_io import retention as retention_module
from tests.environment.proxy import Proxy
from tests.environment.servers import Server
from tests.integration.cli_calls import Called, call, refusal
from tests.integration.operated import GROUP, STREAM, deliver, fill, group_of, pending_ids


@pytest.fixture
def env(server: Server) -> Mapping[str, str]:
    """Settings that name the server, and let retention trim everything."""
    return {"REDIS_STREAMS_URL": server.url, "STREAM_MIN_LENGTH": "0"}


def names(client: redis.Redis) -> set[str]:
    """The consumers that the group knows."""
    return {one["name"] for one in client.xinfo_consumers(STREAM, GROUP)}


def remove(env: Mapping[str, str], consumer: str, stream: str = STREAM) -> Called:
    return call("consumers", "remove", stream, consumer, env=env)


class TestConsumers:
    def test_list(self, redis_client: redis.Redis, env: Mapping[str, str]) -> None:
        fill(redis_client, 3)
        deliver(redis_client, 2, settle=False)
        deliver(redis_client, 1, consumer="consumer-\x1b[31m")
        rows = call("consumers", "list", "-o", "json", env=env).rows
        found = [(row["stream"], row["consumer"], row["pending"]) for row in rows]
        assert found == [(STREAM, "consumer-\x1b[31m", 0), (STREAM, "consumer-a", 2)]
        assert all(0 <= row["idle_ms"] < 60_000 for row in rows)
        assert call("consumers", "list", "events:chat", "-o", "json", env=env).rows == []
        shown = call("consumers", "list", STREAM, env=env).out
        assert "\x1b" not in shown
        assert re.search(r"consumer-a +2 +[0-9.]+s", shown)

    def test_only_those_that_hold_nothing_are_removed(
        self, redis_client: redis.Redis, env: Mapping[str, str]
    ) -> None:
        ids = fill(redis_client, 3)
        deliver(redis_client, 2, settle=False)
        deliver(redis_client, 1, consumer="consumer-b")
        refused = refusal(remove(env, "consumer-a"), 1)
        assert "consumer-a holds 2 entries" in refused
        assert "after 1m" in refused
        assert pending_ids(redis_client) == ids[:2]
        assert remove(env, "consumer-b").code == 0
        assert names(redis_client) == {"consumer-a"}
        assert "no consumer 'consumer-b'" in refusal(remove(env, "consumer-b"), 1)

    def test_no_name_is_not_every_name(self, redis_client: redis.Redis, env: Mapping[str, str]) -> None:
        fill(redis_client, 1)
        deliver(redis_client, 1)
        assert "CONSUMER is empty" in refusal(remove(env, ""), 2)
        assert names(redis_client) == {"consumer-a"}

    def test_what_is_not_there(self, redis_client: redis.Redis, env: Mapping[str, str]) -> None:
        assert "no consumer" in refusal(remove(env, "consumer-a"), 1)
        redis_client.xadd(STREAM, {"type": "login"})
        assert "no consumer" in refusal(remove(env, "consumer-a"), 1)
        assert call("consumers", "list", "-o", "json", env=env).rows == []
        redis_client.set("events:chat", "x")
        assert "WRONGTYPE" in refusal(remove(env, "consumer-a", "events:chat"), 1)
        assert "WRONGTYPE" in refusal(call("consumers", "list", env=env), 1)

    def test_a_permission_that_is_missing(
        self, redis_client: redis.Redis, server: Server, env: Mapping[str, str]
    ) -> None:
        fill(redis_client, 1)
        deliver(redis_client, 1)
        rules = ("on", "nopass", "~*", "+@all", "-xgroup|delconsumer")
        redis_client.execute_command("ACL", "SETUSER", "viewer", *rules)
        try:
            viewer = {**env, "OPERATOR_URL": server.url.replace("redis://", "redis://viewer:x@")}
            assert "operator's user" in refusal(remove(viewer, "consumer-a"), 1)
        finally:
            redis_client.execute_command("ACL", "DELUSER", "viewer")
        assert names(redis_client) == {"consumer-a"}


class TestRetention:
    def test_what_holds_it_up(self, redis_client: redis.Redis, env: Mapping[str, str]) -> None:
        ids = fill(redis_client, 10)
        redis_client.xgroup_create(STREAM, "another", id=ids[4])
        deliver(redis_client, 2)
        deliver(redis_client, 1, settle=False)
        deliver(redis_client, 1)
        [row] = call("retention", STREAM, "-o", "json", env=env).rows
        assert (row["length"], row["settled"], row["headroom"]) == (10, 2, 20)
        held = [row[name] for name in ("held_by_group", "held_by_entry", "held_by_consumer")]
        assert held == [GROUP, ids[2], "consumer-a"]
        assert row["held_for_ms"] > 0
        assert row["groups"] == [{"group": GROUP, "entry": ids[2]}, {"group": "another", "entry": ids[4]}]
        redis_client.xack(STREAM, GROUP, ids[2])
        deliver(redis_client, 5)
        [row] = call("retention", STREAM, "-o", "json", env=env).rows
        assert (row["held_by_group"], row["held_by_consumer"], row["settled"]) == ("another", None, 5)
        assert "another" in call("retention", env=env).out

    def test_nothing_holds_up_what_is_all_settled(
        self, redis_client: redis.Redis, env: Mapping[str, str]
    ) -> None:
        fill(redis_client, 15)
        deliver(redis_client, 15)
        [row] = call("retention", STREAM, "-o", "json", env=env).rows
        assert (row["settled"], row["headroom"]) == (15, 100)
        assert (row["held_by_group"], row["held_by_entry"]) == (None, None)
        assert "no group" not in call("retention", STREAM, env=env).out
        redis_client.xadd(STREAM, {"type": "login"})
        deliver(redis_client, 1, settle=False)
        [row] = call("retention", STREAM, "-o", "json", env=env).rows
        assert (row["settled"], row["held_by_group"]) == (15, GROUP)

    def test_nothing_was_read(self, redis_client: redis.Redis, env: Mapping[str, str]) -> None:
        fill(redis_client, 3)
        [row] = call("retention", STREAM, "--apply", "-o", "json", env=env).rows
        assert (row["settled"], row["held_by_entry"], row["trimmed"]) == (0, "0-0", 0)

    def test_apply(self, redis_client: redis.Redis, env: Mapping[str, str]) -> None:
        redis_client.config_set("stream-node-max-entries", 1)
        try:
            ids = fill(redis_client, 10)
            deliver(redis_client, 6)
            [row] = call(
                "retention", STREAM, "--apply", "-o", "json", env={**env, "STREAM_MIN_LENGTH": "8"}
            ).rows
            assert (row["trimmed"], row["length"], row["least_length"]) == (2, 8, 8)
            for trimmed in (3, 0):
                [row] = call("retention", STREAM, "--apply", "-o", "json", env=env).rows
                assert row["trimmed"] == trimmed
            assert redis_client.xrange(STREAM)[0][0] == ids[5]
            assert group_of(redis_client)["lag"] == 4
        finally:
            redis_client.config_set("stream-node-max-entries", 100)

    def test_nothing_goes_without_a_group(self, redis_client: redis.Redis, env: Mapping[str, str]) -> None:
        redis_client.xadd(STREAM, {"type": "login"})
        [row] = call("retention", STREAM, "--apply", "-o", "json", env=env).rows
        assert (row["trimmed"], row["length"], row["held_by_group"]) == (0, 1, None)
        assert "no group: nothing is trimmed" in call("retention", STREAM, env=env).out
        assert "trimmed" in call("retention", "--apply", env=env).out

    def test_nothing_goes_while_the_routers_own_group_is_missing(
        self, redis_client: redis.Redis, env: Mapping[str, str]
    ) -> None:
        redis_client.xadd(STREAM, {"type": "login"})
        redis_client.xgroup_create(STREAM, "another", id="$")
        [row] = call("retention", STREAM, "--apply", "-o", "json", env=env).rows
        assert (row["trimmed"], row["missing_group"]) == (0, GROUP)
        assert f"{GROUP} is missing: nothing is trimmed" in call("retention", STREAM, env=env).out

    def test_more_than_is_counted(
        self, redis_client: redis.Redis, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention_module, "MOST_COUNTED", 100)
        fill(redis_client, 450)
        deliver(redis_client, 450)
        [row] = call("retention", STREAM, "-o", "json", env=env).rows
        assert (row["settled"], row["settled_exact"], row["headroom"]) == (200, False, None)
        assert "more than 200" in call("retention", STREAM, env=env).out

    def test_a_lost_reply_and_what_is_refused(
        self, redis_client: redis.Redis, server: Server, env: Mapping[str, str]
    ) -> None:
        fill(redis_client, 3)
        deliver(redis_client, 3)
        redis_client.script_flush()
        with Proxy(server.port) as proxy:
            proxy.drop_reply("EVAL", request=b"XTRIM")
            lossy = {**env, "REDIS_STREAMS_URL": proxy.url}
            lost = refusal(call("retention", STREAM, "--apply", env=lossy), 1)
            assert "it may or may not have been carried out" in lost
        assert call("retention", STREAM, "--apply", env=env).code == 0
        redis_client.execute_command("ACL", "SETUSER", "viewer", "on", "nopass", "~*", "+@all", "-xtrim")
        try:
            viewer = {**env, "OPERATOR_URL": server.url.replace("redis://", "redis://viewer:x@")}
            redis_client.delete(STREAM)
            fill(redis_client, 3)
            deliver(redis_client, 3)
            assert "operator's user" in refusal(call("retention", STREAM, "--apply", env=viewer), 1)
        finally:
            redis_client.execute_command("ACL", "DELUSER", "viewer")
        redis_client.set("events:chat", "x")
        assert "WRONGTYPE" in refusal(call("retention", "events:chat", env=env), 1)
