"""A primary, a replica and Sentinels that speak TLS only, and ask for certificates and passwords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from tests.environment.certificates import Certificates
from tests.environment.sentinels import SERVICE, Watched
from tests.environment.servers import Server, ServerProgram, free_port

SERVERS_PASSWORD, SENTINELS_PASSWORD, ROUTERS_PASSWORD = "of-servers", "of-sentinels", "of-the-router"
SENTINEL_USER = "event-router"


class GuardedWatched(Watched):
    """What `Watched` is, guarded; it needs a server program with TLS.

    The servers' plain ports are the tests' own: replicas, Sentinels and routers use the other ones. To
    the Sentinels the router signs in as a user who may do just what docs/security.md says.
    """

    def __init__(
        self, program: ServerProgram, folder: Path, certificates: Certificates, *, sentinels: int = 1
    ) -> None:
        self.certificates = certificates
        self._tls_ports = {"first": free_port(), "second": free_port()}
        super().__init__(program, folder, sentinels=sentinels)

    @property
    def url(self) -> str:
        """For the router, with what all of them ask for."""
        signed_in = f"sentinel_username={SENTINEL_USER}&sentinel_password={ROUTERS_PASSWORD}"
        return (
            f"rediss+sentinel://default:{SERVERS_PASSWORD}@{self.places}/{SERVICE}/0"
            f"?{signed_in}&{self.certificates.options()}"
        )

    def replication_port(self, server: Server) -> int:
        return self._tls_ports[server.directory.name]

    def server_words(self, name: str) -> dict[str, Any]:
        guards = [
            *("--tls-port", str(self._tls_ports[name]), "--tls-replication", "yes"),
            *("--requirepass", SERVERS_PASSWORD, "--masterauth", SERVERS_PASSWORD),
        ]
        for option, file in self._files().items():
            guards += [f"--{option}", str(file)]
        return {"options": guards, "password": SERVERS_PASSWORD}

    def sentinel_lines(self, port: int) -> str:
        files = "".join(f"{option} {file}\n" for option, file in self._files().items())
        return (
            f"port 0\ntls-port {port}\ntls-replication yes\n{files}"
            f"sentinel auth-pass {SERVICE} {SERVERS_PASSWORD}\n"
            f"requirepass {SENTINELS_PASSWORD}\nsentinel sentinel-pass {SENTINELS_PASSWORD}\n"
            f"user {SENTINEL_USER} on >{ROUTERS_PASSWORD} -@all +ping +sentinel|masters\n"
        )

    def sentinel_client(self, port: int) -> redis.Redis:
        return redis.Redis(
            port=port,
            password=SENTINELS_PASSWORD,
            protocol=2,
            decode_responses=True,
            socket_timeout=5,
            ssl=True,
            ssl_ca_certs=str(self.certificates.authority),
            ssl_certfile=str(self.certificates.certificate("client")),
            ssl_keyfile=str(self.certificates.key("client")),
        )

    def _files(self) -> dict[str, Path]:
        return {
            "tls-cert-file": self.certificates.certificate("server"),
            "tls-key-file": self.certificates.key("server"),
            "tls-ca-cert-file": self.certificates.authority,
        }
