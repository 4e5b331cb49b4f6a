"""The environment's own tests: a server does what the tests rely on."""

from __future__ import annotations

import pytest
import redis

from tests.conftest import ServerFactory
from tests.environment.servers import Server


def test_the_shared_server_is_empty_for_each_test(server: Server, redis_client: redis.Redis) -> None:
    assert redis_client.dbsize() == 0
    redis_client.set("left", "over")


def test_the_shared_server_was_emptied_after_the_test_before(redis_client: redis.Redis) -> None:
    assert redis_client.dbsize() == 0


def test_data_of_an_append_only_server_outlives_a_kill(new_server: ServerFactory) -> None:
    server = new_server(append_only=True).start()
    with server.client() as client:
        client.set("kept", "1")
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert client.get("kept") == "1"


def test_a_frozen_server_answers_after_thawing(new_server: ServerFactory) -> None:
    server = new_server().start()
    server.freeze()
    with server.client(timeout_s=0.2) as impatient, pytest.raises(redis.TimeoutError):
        impatient.ping()
    server.thaw()
    with server.client() as client:
        assert client.ping()
