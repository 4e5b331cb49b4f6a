"""A primary, a replica and the Sentinels that watch them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Any

import redis

from tests.environment.servers import START_SECONDS, Server, ServerProgram, free_port
from tests.environment.waiting import eventually

SERVICE = "mymaster"
DOWN_AFTER_MS = 500


class Watched:
    """Two servers and some Sentinels, with a failover after half a second of silence.

    A replica that is promoted is the primary of `primary()`; both servers keep their ports.
    """

    def __init__(self, program: ServerProgram, folder: Path, *, sentinels: int = 1) -> None:
        self._program = program
        self._folder = folder
        self.servers = [self._server("first")]
        self.servers.append(self._server("second", self.replication_port(self.servers[0])))
        self.ports = [free_port() for _ in range(sentinels)]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """For the router; nobody is at the first address."""
        return f"redis+sentinel://{self.places}/{SERVICE}/0"

    @property
    def places(self) -> str:
        """The Sentinels' addresses as a URL has them, after one where nobody is."""
        return ",".join(f"127.0.0.1:{port}" for port in (1, *self.ports))

    def replication_port(self, server: Server) -> int:
        """The port at which replicas, Sentinels and routers find a server."""
        return server.port

    def server_words(self, name: str) -> dict[str, Any]:
        """What a server is given beside the options of replication."""
        return {}

    def sentinel_lines(self, port: int) -> str:
        """The lines of a Sentinel's configuration that say who reaches it and how it reaches servers."""
        return f"port {port}\n"

    def sentinel_client(self, port: int) -> redis.Redis:
        """The tests' own client of a Sentinel."""
        return redis.Redis(port=port, protocol=2, decode_responses=True, socket_timeout=5)

    def _server(self, name: str, replica_of: int | None = None) -> Server:
        words = self.server_words(name)
        options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]
        options += words.pop("options", ())
        if replica_of is not None:
            options += ["--replicaof", f"127.0.0.1 {replica_of}"]
        return Server(self._program, self._folder / name, append_only=True, options=options, **words)

    def __enter__(self) -> Watched:
        try:
            for server in self.servers:
                server.start()
            eventually(self._replicates, within=START_SECONDS, what="the replica follows")
            for number, port in enumerate(self.ports):
                self._processes.append(self._sentinel(number, port))
            eventually(self._watches, within=START_SECONDS, what="the Sentinels know all")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.kill()

    def primary(self) -> Server:
        """The server that the Sentinels name."""
        with self.sentinel_client(self.ports[0]) as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.servers if self.replication_port(server) == int(port))

    def fail_over(self) -> None:
        """Ask for a planned failover; it returns before that is done."""
        with self.sentinel_client(self.ports[0]) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)

    def await_primary(self, server: Server, *, within: float) -> None:
        """Wait until this server is named, and takes writes."""

        def writes() -> bool:
            with server.client() as client:
                return self.primary() is server and client.role()[0] in ("master", b"master")

        eventually(writes, within=within, what=f"{server!r} is the primary")

    def _replicates(self) -> bool:
        with self.servers[1].client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    def _watches(self) -> bool:
        for port in self.ports:
            with self.sentinel_client(port) as sentinel:
                state = sentinel.sentinel_masters()[SERVICE]
                if state["num-slaves"] != 1 or state["num-other-sentinels"] != len(self.ports) - 1:
                    return False
                if [one["master-link-status"] for one in sentinel.sentinel_slaves(SERVICE)] != ["ok"]:
                    return False
        return True

    def _sentinel(self, number: int, port: int) -> subprocess.Popen[bytes]:
        folder = self._folder / f"sentinel-{number}"
        folder.mkdir()
        configuration = folder / "sentinel.conf"
        quorum = len(self.ports) // 2 + 1
        configuration.write_text(
            f"bind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.replication_port(self.servers[0])} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n" + self.sentinel_lines(port)
        )
        with (folder / "sentinel.log").open("wb") as log:
            return subprocess.Popen(
                [str(self._program.path), str(configuration), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop_sentinels(self) -> None:
        """Freeze them all: they accept connections and answer nothing."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)

    def resume_sentinels(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            for process in self._processes:
                process.send_signal(signal.SIGCONT)
