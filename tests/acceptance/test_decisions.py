"""What a handler decides on is checked, also when it decides on a dead letter; and waiting is not working."""

from __future__ import annotations

import redis

from tests.acceptance.workplace import APP_DIR
from tests.conftest import RouterFactory
from tests.environment.servers import Server
from tests.environment.streams import await_settled, letters

BANK = "events:bank"


def bank(new_router: RouterFactory, server: Server, **settings: object) -> None:
    """A running router with the bank's handler."""
    new_router(server.url, APP_DIR=APP_DIR, HANDLERS="bank:BankHandler", **settings).start()


def spend(client: redis.Redis, cents: int) -> str:
    return str(client.xadd(BANK, {"type": "spend", "account_id": "a", "cents": str(cents)}))


def test_a_rejection_is_not_decided_on_what_somebody_else_has_changed(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    redis_client.hset("state:account:a", "balance", "10")
    bank(new_router, server)
    spend(redis_client, 10)
    await_settled(redis_client, [BANK], within=5)
    assert redis_client.hget("state:account:a", "balance") == "0"
    redis_client.hset("state:account:a", "balance", "1000")
    spend(redis_client, 500)
    await_settled(redis_client, [BANK], within=5)
    assert letters(redis_client, BANK) == {}
    assert redis_client.hget("state:account:a", "balance") == "500"
    too_much = spend(redis_client, 501)
    await_settled(redis_client, [BANK], within=5)
    assert letters(redis_client, BANK)[too_much]["dlq_reason"] == "rejected"


def test_waiting_for_earlier_events_of_the_entity_is_not_the_handlers_time(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory
) -> None:
    bank(new_router, server, HANDLER_TIMEOUT_S=1, MAX_DELIVERIES=1)
    for _ in range(25):  # two and a half seconds of work on one account, one after the other
        redis_client.xadd(BANK, {"type": "audit", "account_id": "a", "cents": "0"})
    await_settled(redis_client, [BANK], within=15)
    assert letters(redis_client, BANK) == {}
    assert redis_client.hget("state:account:a", "audits") == "25"
