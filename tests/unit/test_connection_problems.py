"""What is said of a connection that cannot be made."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError

from event_router.redis_client.address import parse_url
from event_router.redis_client.connection_problems import connection_problem

AWAY = "Error 111 connecting to h1:26379."
NOBODY = "none of the Sentinels h1:26379, h2:26379 names a primary 'mymaster' that is up"


@pytest.mark.parametrize(
    ("problems", "hint"),
    [
        ([AWAY, AWAY], ""),
        ([AWAY, "NOAUTH Authentication required."], "sentinel_username and sentinel_password"),
        (["WRONGPASS invalid username-password pair", AWAY], "sentinel_username and sentinel_password"),
        ([AWAY, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"], "ssl_ca_certs"),
        ([AWAY, "Connection closed by server."], "write rediss+sentinel:// instead of redis+sentinel://"),
    ],
)
def test_of_sentinels_what_kept_them_from_being_asked(problems: list[str], hint: str) -> None:
    address = parse_url("redis+sentinel://h1:26379,h2:26379/mymaster/0")
    error = ConnectionError(", ".join(["No master found for 'mymaster'", *problems]))
    said = str(connection_problem(error, address))
    assert said.startswith(NOBODY)
    assert hint in said
    assert bool(hint) == (said != NOBODY)
