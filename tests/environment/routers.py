"""Routers as a user runs them: the installed program, a process each, configured by the environment."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.environment.servers import free_port
from tests.environment.waiting import eventually

PREFIX = "EVENT_ROUTER_"
READY_SECONDS = 20.0

# Small, so that a takeover happens while a test waits for it.
QUICK = {"CLAIM_MIN_IDLE_MS": "1500", "CLAIM_INTERVAL_MS": "500", "RETRY_BACKOFF_MS": "100"}


def program() -> Path:
    """The installed `event-router`: beside this Python, or TEST_EVENT_ROUTER."""
    named = os.environ.get("TEST_EVENT_ROUTER")
    return Path(named) if named else Path(sys.executable).parent / "event-router"


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment without the router's variables, then the given settings, prefixed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name != "POD_NAME"
    }
    return inherited | {PREFIX + name: str(value) for name, value in settings.items()}


class Router:
    """One `event-router run` that can be killed, frozen and started again under the same pod name.

    Every start has its own files in ``directory``: ``{pod}.{n}.log`` (standard error) and ``{pod}.{n}.out``.
    """

    def __init__(
        self,
        directory: Path,
        streams_url: str,
        pod: str | None,
        settings: Mapping[str, object],
        variables: Mapping[str, str],
    ) -> None:
        self.pod = pod
        self.http_port = free_port()
        self.starts = 0
        self._directory = directory
        own = {
            "REDIS_STREAMS_URL": streams_url,
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": self.http_port,
            "LOG_FORMAT": "json",
        }
        self._environment = environment(own | QUICK | dict(settings)) | dict(variables)
        if pod is not None:
            self._environment["POD_NAME"] = pod
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<Router {self.pod} start {self.starts} {'running' if self.is_running else 'stopped'}>"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def consumer(self) -> str:
        """The name it reads under, by its pod name."""
        return f"consumer-{self.pod}"

    def start(self, *, ready: bool = True) -> Router:
        """Start it and, unless told otherwise, wait until it is ready."""
        assert not self.is_running, f"{self!r} runs already"
        self.starts += 1
        with self._file("log").open("wb") as log, self._file("out").open("wb") as out:
            self._process = subprocess.Popen(
                [str(program()), "run"],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )
        return self.await_ready() if ready else self

    def await_ready(self, within: float = READY_SECONDS) -> Router:
        """Wait for 200 from /readyz; fails at once if the process ended instead."""
        eventually(
            lambda: not self.is_running or self.readyz()[0] == 200,
            within=within,
            what=lambda: f"{self!r} ready\n{self.log_tail()}",
        )
        assert self.is_running, f"{self!r} ended with {self.exit_code} before it was ready\n{self.log_tail()}"
        return self

    def restart(self, *, ready: bool = False) -> Router:
        """Start again after an exit or a kill; by default without waiting."""
        return self.start(ready=ready)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM; returns at once."""
        self._signal(signal.SIGTERM)

    def wait(self, within: float) -> int:
        """Wait for the process to end by itself; its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} still runs after {within} s\n{self.log_tail()}") from None

    def _signal(self, number: int) -> None:
        assert self._process is not None, f"{self!r} was never started"
        assert self.is_running, f"{self!r} ended with {self.exit_code}\n{self.log_tail()}"
        self._process.send_signal(number)

    def get(self, path: str, timeout: float = 3.0) -> tuple[int, str]:
        """One HTTP request: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=timeout)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def readyz(self) -> tuple[int, dict[str, Any]]:
        """Status and the JSON that says why."""
        status, body = self.get("/readyz")
        return status, json.loads(body)

    def metrics(self) -> dict[str, float]:
        """/metrics as `name{label="value",…}` to value: labels sorted, names without the product's prefix."""
        samples = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                samples[sample.name.removeprefix("event_router_") + "{" + labels + "}"] = sample.value
        return samples

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry the given labels; 0 where there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.partition("{")[0] == name and all(w in sample for w in wanted)
        )

    def log(self) -> list[dict[str, Any]]:
        """Every line logged since the last start, parsed; a line that is no JSON object fails the test."""
        return list(_parsed(self._file("log")))

    def all_logs(self) -> list[dict[str, Any]]:
        """The lines of every start, the oldest first."""
        return [
            line
            for path in sorted(self._directory.glob(f"{self.pod or 'nameless'}.*.log"))
            for line in _parsed(path)
        ]

    def log_text(self) -> str:
        """The log since the last start as it was written."""
        return self._file("log").read_text(errors="replace") if self.starts else ""

    def log_tail(self, length: int = 2000) -> str:
        return self.log_text()[-length:]

    def _file(self, kind: str) -> Path:
        return self._directory / f"{self.pod or 'nameless'}.{self.starts}.{kind}"


def _parsed(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            return  # the process was killed while it wrote
        parsed = json.loads(line)
        assert isinstance(parsed, dict), f"{path.name}: no JSON object: {line!r}"
        yield parsed
