"""What a Redis URL may have as options; a wrong one is said before anything connects."""

from __future__ import annotations

import pytest

from event_router.redis_client.address import InvalidURL, parse_url

SENTINELS = "redis+sentinel://h1:26379/mymaster/0"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@h:6379/0?sokcet_timeout=1", "'sokcet_timeout' is none that redis-py knows"),
        ("rediss://:secret@h:6379/0?ssl_ca_cert=/ca.crt", "'ssl_ca_cert' is none that redis-py knows"),
        ("redis://:secret@h:6379/0?ssl_ca_certs=/ca.crt", "'ssl_ca_certs' is for TLS: begin with rediss"),
        ("unix://:secret@/run/redis.sock?db=0&port=1", "'port' is none that redis-py knows"),
        (f"{SENTINELS}?sentinel_user=u&sentinel_password=secret", "'sentinel_user' is none that"),
        (f"{SENTINELS}?ssl_ca_certs=/ca.crt&sentinel_password=secret", "is for TLS: begin with rediss"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(url: str, said: str) -> None:
    with pytest.raises(InvalidURL) as raised:
        parse_url(url)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p@h:6379/1?socket_keepalive=yes&health_check_interval=5&max_connections=3",
        "rediss://h:6379/0?ssl_ca_certs=/ca.crt&ssl_cert_reqs=none&ssl_check_hostname=false",
        "unix:///run/redis.sock?db=2",
        f"{SENTINELS}?sentinel_username=u&sentinel_password=p&socket_timeout=1.5",
        f"{SENTINELS.replace('redis', 'rediss')}?ssl_certfile=/c.crt&ssl_keyfile=/c.key",
    ],
)
def test_options_of_every_kind_of_connection_pass(url: str) -> None:
    assert parse_url(url).options
