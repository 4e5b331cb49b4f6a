"""The embedded server: state from run to run, one server a directory, and no server left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from event_router import embedded
from event_router.embedded import EmbeddedServer, EmbeddedServerError, running

OWNER = """
import sys, time
from pathlib import Path
from event_router.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print(server.start(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs the embedded server in tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("redis://")
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: running(tmp_path) is None)


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def server_pid(data_dir: Path) -> int:
    return int(json.loads((data_dir / "embedded.json").read_text())["pid"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_state_is_kept_from_run_to_run(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        assert server.owned
        with redis.Redis.from_url(server.start()) as client:
            client.set("kept", "yes")
            config = client.config_get("append*") | client.config_get("maxmemory-policy")
            assert config["appendonly"] == "yes"
            assert config["appendfsync"] == "everysec"
            assert config["maxmemory-policy"] == "noeviction"
    assert running(tmp_path) is None
    with EmbeddedServer(tmp_path) as server, redis.Redis.from_url(server.start()) as client:
        assert client.get("kept") == b"yes"


def test_it_answers_soon(tmp_path: Path) -> None:
    begin = time.monotonic()
    with EmbeddedServer(tmp_path):
        assert time.monotonic() - begin < 1.0  # measured: 0.04 s; the machine may be busy


def test_other_commands_find_it(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    with EmbeddedServer(tmp_path) as server:
        assert running(tmp_path) == server.start()
    assert not (tmp_path / "embedded.json").exists()


def test_a_second_run_attaches_and_leaves_it_running(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    url = running(tmp_path)
    second = EmbeddedServer(tmp_path)
    assert second.start() == url
    assert not second.owned
    second.stop()
    assert running(tmp_path) == url


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_router_leaves_no_server(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    pid = server_pid(tmp_path)
    assert alive(pid)
    owner.kill()
    until(lambda: not alive(pid))


def test_the_next_run_after_a_kill_owns_its_server(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    with redis.Redis.from_url(running(tmp_path) or "") as client:
        client.set("kept", "yes")
    old = server_pid(tmp_path)
    owner.kill()
    owner.wait()
    with EmbeddedServer(tmp_path) as server, redis.Redis.from_url(server.start()) as client:
        assert server.owned
        assert server_pid(tmp_path) != old
        assert not alive(old)
        assert client.get("kept") == b"yes"


def test_an_orphan_is_stopped_before_a_new_server_takes_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel does not stop it (macOS), the server outlives a killed owner."""
    monkeypatch.setattr(embedded, "stop_with_the_parent", lambda: None)
    orphan = EmbeddedServer(tmp_path)
    orphan.start()
    assert orphan._lock is not None
    assert orphan._process is not None
    orphan._lock.close()  # what the kernel does for a killed owner
    with EmbeddedServer(tmp_path) as server:
        assert server.owned
        assert orphan._process.wait(5) == 0
        assert server_pid(tmp_path) != orphan._process.pid


def test_an_interrupt_from_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path):
        assert os.getsid(server_pid(tmp_path)) != os.getsid(0)


def test_a_stale_address_is_not_believed(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "other") as other:
        # The port of an old run may meanwhile be another server's: its process id tells.
        (tmp_path / "embedded.json").write_text(json.dumps({"url": other.start(), "pid": os.getpid()}))
        assert running(tmp_path) is None
        with EmbeddedServer(tmp_path) as server:
            assert server.owned
            assert server.start() != other.start()
        assert running(tmp_path / "other") == other.start()


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"url": "redis://elsewhere:1/0", "pid": 1}', '{"url": 1}']
)
def test_a_broken_address_file_is_not_believed(tmp_path: Path, content: str) -> None:
    (tmp_path / "embedded.json").write_text(content)
    assert running(tmp_path) is None


def test_a_server_that_stops_at_once_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-server"
    broken.write_text(
        "#!/bin/sh\necho '1:M 1 Jan 2026 * Hello'\necho '1:M 1 Jan 2026 # Bad file format'\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "server_program", lambda: broken)
    with pytest.raises(EmbeddedServerError) as caught:
        EmbeddedServer(tmp_path).start()
    assert "Bad file format" in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    with EmbeddedServer(tmp_path) as server:  # the failure gave the directory free
        assert server.owned


def test_without_a_server_program_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EmbeddedServerError, match="EVENT_ROUTER_REDIS_STREAMS_URL") as caught:
        embedded.server_program()
    assert "\n" not in str(caught.value)


def test_a_server_on_the_path_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.server_program() == program


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="EVENT_ROUTER_DATA_DIR"):
        EmbeddedServer(tmp_path / "file" / "data").start()


def test_stop_before_start_and_twice(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert running(tmp_path) is None


def test_a_server_frozen_at_its_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT_S", 0.2)
    server = EmbeddedServer(tmp_path)
    server.start()
    pid = server_pid(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not alive(pid)
