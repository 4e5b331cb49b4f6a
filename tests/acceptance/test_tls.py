"""TLS and mutual TLS to Redis and to Sentinels; what is wrong with a certificate is said in one line.

On Debian's redis-server: the embedded server is built without TLS.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import RouterFactory
from tests.environment.certificates import Certificates, make_certificates, serves_tls
from tests.environment.routers import environment, program
from tests.environment.servers import Server, free_port, installed_programs
from tests.environment.streams import await_settled
from tests.integration.cli_calls import call, refusal

AUTH = "events:auth"


@dataclass(frozen=True)
class Guarded:
    """A server that asks its clients for certificates on its TLS port; the plain one is the tests' own."""

    server: Server
    port: int
    trusted: Certificates
    strangers: Certificates

    def url(self, options: str) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?{options}"


pytestmark = pytest.mark.skipif(not serves_tls(), reason="no redis-server with TLS is installed")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server with mutual TLS, its authority, and another one that it does not know."""
    folder = tmp_path_factory.mktemp("tls")
    trusted, strangers = make_certificates(folder / "trusted"), make_certificates(folder / "strangers")
    port = free_port()
    server = Server(
        installed_programs()["redis"],
        folder / "server",
        options=[
            *("--tls-port", str(port), "--tls-auth-clients", "yes"),
            *(
                "--tls-cert-file",
                str(trusted.certificate("server")),
                "--tls-key-file",
                str(trusted.key("server")),
            ),
            *("--tls-ca-cert-file", str(trusted.authority)),
        ],
    )
    try:
        yield Guarded(server.start(), port, trusted, strangers)
    finally:
        server.kill()


@pytest.fixture
def client(guarded: Guarded) -> Iterator[redis.Redis]:
    with guarded.server.client() as client:
        client.flushall()
        yield client


def test_a_router_works_over_mutual_tls(
    guarded: Guarded, client: redis.Redis, new_router: RouterFactory
) -> None:
    url = guarded.url(guarded.trusted.options())
    router = new_router(url, REDIS_PUBSUB_URL=url).start()
    for _ in range(300):
        client.xadd(AUTH, {"type": "login", "user_id": "7"})
    await_settled(client, [AUTH], within=10)
    assert client.hget("state:user:7", "login_count") == "300"
    env = {"REDIS_STREAMS_URL": url}
    assert call("state", "get", "user", "7", env=env).code == 0
    assert call("doctor", "--fail-on", "error", env=env).code == 0
    router.terminate()
    assert router.wait(10) == 0


Wrong = Callable[[Guarded], tuple[str, str]]


def without_certificate(guarded: Guarded) -> tuple[str, str]:
    return guarded.url(guarded.trusted.options(client=False)), "ssl_certfile and ssl_keyfile"


def with_an_unknown_certificate(guarded: Guarded) -> tuple[str, str]:
    options = guarded.strangers.options().replace(
        guarded.strangers.options(client=False), guarded.trusted.options(client=False)
    )
    return guarded.url(options), "does not trust the authority of the client's certificate"


def with_another_authority(guarded: Guarded) -> tuple[str, str]:
    return guarded.url(guarded.strangers.options()), "as ssl_ca_certs"


def without_authority(guarded: Guarded) -> tuple[str, str]:
    return guarded.url(""), "as ssl_ca_certs"


def plain_to_tls(guarded: Guarded) -> tuple[str, str]:
    return f"redis://127.0.0.1:{guarded.port}/0", "write rediss://"


def tls_to_plain(guarded: Guarded) -> tuple[str, str]:
    return f"rediss://127.0.0.1:{guarded.server.port}/0?{guarded.trusted.options()}", "write redis://"


WRONGS = [
    without_certificate,
    with_an_unknown_certificate,
    with_another_authority,
    without_authority,
    plain_to_tls,
    tls_to_plain,
]


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_is_said_by_doctor_and_by_commands(guarded: Guarded, wrong: Wrong) -> None:
    url, said = wrong(guarded)
    env = {"REDIS_STREAMS_URL": url, "REDIS_TIMEOUT_S": "0.3"}
    called = call("doctor", "-o", "json", env=env)
    [found] = [one for one in called.rows[0]["findings"] if one["severity"] == "error"]
    assert called.code == 1
    assert said in found["what"]
    assert "\n" not in found["what"]
    assert said in refusal(call("status", env=env), 1)


@pytest.mark.parametrize(
    "wrong",
    [with_another_authority, *(pytest.param(wrong, marks=pytest.mark.battery) for wrong in WRONGS[:1])],
)
def test_a_router_says_once_what_is_wrong_and_stays_unready(
    guarded: Guarded, new_router: RouterFactory, wrong: Wrong
) -> None:
    url, said = wrong(guarded)
    router = new_router(url).start(ready=False)
    line = first_outage(router)
    assert said in line["error"]
    assert router.readyz()[0] == 503
    assert router.get("/livez")[0] == 200


def first_outage(router: Any) -> dict[str, Any]:
    from tests.environment.waiting import eventually

    def logged() -> list[dict[str, Any]]:
        return [line for line in router.log() if line["event"] == "redis_unavailable"]

    found: list[dict[str, Any]] = eventually(logged, within=10, what="an outage is logged")
    return found[0]


@pytest.mark.parametrize(
    "options", ["ssl_ca_certs={0}", "ssl_certfile={0}", "ssl_ca_certs={1}&ssl_keyfile={1}"]
)
def test_files_that_cannot_be_used_are_named_without_a_server(
    guarded: Guarded, tmp_path: Path, options: str
) -> None:
    missing, ours = tmp_path / "missing.pem", guarded.trusted.authority
    url = f"rediss://127.0.0.1:1/0?{options.format(missing, ours)}"
    env = {"REDIS_STREAMS_URL": url}
    for line in (refusal(call("check", env=env), 2), refusal(call("status", env=env), 2)):
        assert str(missing) in line or "ssl_keyfile" in line
    assert "EVENT_ROUTER_REDIS_STREAMS_URL" in refusal(call("check", env=env), 2)
    assert (
        "cannot be used" in call("doctor", env=env).out
        or "needs an ssl_certfile" in call("doctor", env=env).out
    )


def test_a_router_ends_at_files_that_cannot_be_used(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    url = f"rediss://127.0.0.1:1/0?ssl_certfile={missing}"
    done = subprocess.run(
        [str(program()), "run"],
        env=environment({"REDIS_STREAMS_URL": url, "HTTP_PORT": 0, "LOG_FORMAT": "json"}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(missing) in done.stderr.splitlines()[-1]
    assert not [line for line in done.stderr.splitlines()[:-1] if json.loads(line)["level"] != "info"]
