"""Sentinels that speak TLS only, and ask for certificates and passwords, as do the servers they watch.

On Debian's redis-server: the embedded server is built without TLS.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_sentinel import SETTINGS, lose_the_primary_midway
from tests.conftest import RouterFactory
from tests.environment.certificates import make_certificates, serves_tls
from tests.environment.guarded_sentinels import ROUTERS_PASSWORD, SERVERS_PASSWORD, GuardedWatched
from tests.environment.servers import installed_programs
from tests.integration.cli_calls import call, refusal

pytestmark = pytest.mark.skipif(not serves_tls(), reason="no redis-server with TLS is installed")


def guarded(folder: Path, *, sentinels: int = 1) -> GuardedWatched:
    certificates = make_certificates(folder / "certificates")
    return GuardedWatched(
        installed_programs()["redis"], folder / "watched", certificates, sentinels=sentinels
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedWatched]:
    """Guarded servers and a Sentinel that go on as they are."""
    with guarded(tmp_path_factory.mktemp("guarded")) as watched:
        yield watched


@pytest.mark.parametrize(
    ("blow", "sentinels"),
    [
        ("kill", 1),
        pytest.param("kill", 3, marks=pytest.mark.battery),
        pytest.param("freeze", 3, marks=pytest.mark.battery),
    ],
)
def test_when_the_primary_is_lost_the_router_goes_on_with_the_replica(
    new_router: RouterFactory, tmp_path: Path, blow: str, sentinels: int
) -> None:
    with guarded(tmp_path, sentinels=sentinels) as watched:
        router = new_router(watched.url, REDIS_PUBSUB_URL=watched.url, **SETTINGS).start()
        lose_the_primary_midway(watched, router, blow)
        for password in (ROUTERS_PASSWORD, SERVERS_PASSWORD):
            assert password not in router.log_text()
        router.terminate()
        assert router.wait(10) == 0
        assert refusals(watched) == []


def test_the_sentinels_user_of_the_security_page_is_enough(watched: GuardedWatched) -> None:
    with watched.sentinel_client(watched.ports[0]) as sentinel:
        sentinel.execute_command("ACL", "LOG", "RESET")
    called = call("doctor", "-o", "json", env={"REDIS_STREAMS_URL": watched.url})
    named = f"streams: 127.0.0.1:{watched.ports[0]} names 127.0.0.1:"
    (found,) = [one for one in called.rows[0]["findings"] if one["what"].startswith(named)]
    assert (found["severity"], called.code) == ("ok", 0)
    assert call("status", env={"REDIS_STREAMS_URL": watched.url}).code == 0
    assert refusals(watched) == []


def refusals(watched: GuardedWatched) -> list[tuple[str, str]]:
    """What the Sentinels have refused: reason and object."""
    found = []
    for port in watched.ports:
        with watched.sentinel_client(port) as sentinel:
            found += sentinel.acl_log()
    return [(one["reason"], one["object"]) for one in found]


Wrong = Callable[[str], str]

WRONGS: dict[str, tuple[Wrong, str]] = {
    "the Sentinels' password": (
        lambda url: url.replace(ROUTERS_PASSWORD, "wrong"),
        "sentinel_username and sentinel_password",
    ),
    "the servers' password": (lambda url: url.replace(SERVERS_PASSWORD, "wrong"), "WRONGPASS"),
    "no authority": (lambda url: url.replace("ssl_ca_certs", "client_name"), "as ssl_ca_certs"),
    "no certificate": (lambda url: url.partition("&ssl_certfile")[0], "ssl_certfile and ssl_keyfile"),
    "no TLS": (
        lambda url: url.replace("rediss+", "redis+").partition("&ssl_")[0],
        "write rediss+sentinel://",
    ),
}


# After a refused password redis-py does not wait until TLS has closed, and a command ends right then.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("wrong", "said"), WRONGS.values(), ids=list(WRONGS))
def test_what_is_wrong_is_said_by_doctor_and_by_commands(
    watched: GuardedWatched, wrong: Wrong, said: str
) -> None:
    env = {"REDIS_STREAMS_URL": wrong(watched.url), "REDIS_TIMEOUT_S": "2"}
    called = call("doctor", "-o", "json", env=env)
    assert called.code == 1
    (found,) = [one for one in called.rows[0]["findings"] if one["severity"] == "error"]
    for line in (found["what"], refusal(call("status", env=env), 1)):
        assert said in line
        assert "\n" not in line
        for secret in (ROUTERS_PASSWORD, SERVERS_PASSWORD):
            assert secret not in line
    gc.collect()
