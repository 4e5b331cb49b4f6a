"""A primary, a replica and the Sentinels that watch them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path

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
        common = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]
        first = Server(program, folder / "first", append_only=True, options=common)
        replica = ["--replicaof", f"127.0.0.1 {first.port}"]
        self.servers = [first, Server(program, folder / "second", append_only=True, options=common + replica)]
        self.ports = [free_port() for _ in range(sentinels)]
        self._program = program
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """For the router; nobody is at the first address."""
        places = ",".join(f"127.0.0.1:{port}" for port in (1, *self.ports))
        return f"redis+sentinel://{places}/{SERVICE}/0"

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
        with self._asked() as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self) -> None:
        """Ask for a planned failover; it returns before that is done."""
        with self._asked() as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)

    def await_primary(self, server: Server, *, within: float) -> None:
        """Wait until this server is named, and takes writes."""

        def writes() -> bool:
            with server.client() as client:
                return self.primary() is server and client.role()[0] in ("master", b"master")

        eventually(writes, within=within, what=f"{server!r} is the primary")

    def _asked(self) -> redis.Redis:
        return redis.Redis(port=self.ports[0], protocol=2, decode_responses=True, socket_timeout=5)

    def _replicates(self) -> bool:
        with self.servers[1].client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    def _watches(self) -> bool:
        for port in self.ports:
            with redis.Redis(port=port, protocol=2, decode_responses=True, socket_timeout=5) as sentinel:
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
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
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
