"""What is set wrongly is said in one line that names it, with exit code 2 and no traceback."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.workplace import APP_DIR
from tests.conftest import ServerFactory
from tests.environment.proxy import Proxy
from tests.environment.routers import environment, program
from tests.environment.servers import Server, ServerProgram, free_port

UNUSED = "redis://127.0.0.1:1/0"


def refused(directory: Path, **settings: object) -> str:
    """Run with these settings; the one line it ends with. Before it there may only be that it starts."""
    defaults = {
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": free_port(),
        "REDIS_STREAMS_URL": UNUSED,
        "APP_DIR": APP_DIR,
    }
    done = subprocess.run(
        [str(program()), "run"],
        env=environment(defaults | settings) | {"WORK_DIR": str(directory)},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == ""
    *before, line = done.stderr.splitlines()
    assert [json.loads(said)["event"] for said in before] in ([], ["starting"])
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("name", "value", "mentions"),
    [
        ("CLAIM_MIN_IDEL_MS", "1", "CLAIM_MIN_IDLE_MS"),
        ("CLAIM_MIN_IDLE_MS", "soon", "soon"),
        ("MAX_DELIVERIES", "0", "0"),
        ("UNKNOWN_EVENTS", "drop", "drop"),
        ("STREAM_TEMPLATE", "events", "domain"),
        ("REDIS_STREAMS_URL", "", "REDIS_STREAMS_URL"),
        ("REDIS_STREAMS_URL", "http://127.0.0.1:1", "http"),
        ("HANDLERS", "no.such.module:Handler", "no.such.module"),
        ("HANDLERS", "work:NoSuchHandler", "NoSuchHandler"),
        ("HANDLERS", "work:Work", "work:Work"),
        ("HANDLERS", "work", "work"),
        ("HANDLERS", "work:WorkHandler,twice:TwiceHandler", "twice:TwiceHandler"),
        ("HANDLERS", "broken:BrokenHandler", "broken"),
    ],
)
def test_it_is_named_in_one_line(tmp_path: Path, name: str, value: str, mentions: str) -> None:
    line = refused(tmp_path, **{name: value})
    assert name in line
    assert mentions in line


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    line = refused(tmp_path, REDIS_STREAMS_URL="redis://user:geheim@127.0.0.1:port/0")
    assert "geheim" not in line
    assert "REDIS_STREAMS_URL" in line


def test_a_redis_too_old_is_named(server_program: ServerProgram, server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        version = str(client.info("server")["redis_version"])
    old = "6.2" + version[3:]
    with Proxy(server.port) as proxy:
        proxy.replace_in_replies(version.encode(), old.encode())
        if server_program.name == "valkey":
            proxy.replace_in_replies(b"valkey_version", b"vintage_number")
        assert old in refused(tmp_path, REDIS_STREAMS_URL=proxy.url)


def test_redis_cluster_is_refused(new_server: ServerFactory, tmp_path: Path) -> None:
    server = new_server(options=["--cluster-enabled", "yes", "--cluster-port", str(free_port())]).start()
    assert "luster" in refused(tmp_path, REDIS_STREAMS_URL=server.url)


def test_a_port_that_is_taken_is_named(server: Server, tmp_path: Path) -> None:
    line = refused(tmp_path, REDIS_STREAMS_URL=server.url, HTTP_PORT=server.port)
    assert str(server.port) in line
