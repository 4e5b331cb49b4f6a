"""Certificates for tests, made by the openssl program: an authority, a server's, a client's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.environment.servers import installed_programs


def serves_tls() -> bool:
    """Whether a redis-server with TLS is installed; the embedded server is built without."""
    path = installed_programs()["redis"].path
    if path is None:
        return False
    linked = subprocess.run(["ldd", str(path)], capture_output=True, text=True, timeout=10, check=False)
    return "libssl" in linked.stdout


@dataclass(frozen=True)
class Certificates:
    """Files of one authority and of two that it has signed."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def options(self, *, client: bool = True) -> str:
        """The query of a `rediss://` URL that trusts the authority and, if wanted, shows the client's."""
        found = {"ssl_ca_certs": self.authority}
        if client:
            found |= {"ssl_certfile": self.certificate("client"), "ssl_keyfile": self.key("client")}
        return urlencode(found)


def make_certificates(folder: Path) -> Certificates:
    """Make an authority with a server's certificate for 127.0.0.1 and localhost, and a client's."""
    folder.mkdir(parents=True)
    made = Certificates(folder)
    _openssl("req", "-x509", *_new_key(made.key("ca")), "-subj", "/CN=Test CA", "-out", made.authority)
    for name in ("server", "client"):
        request = folder / f"{name}.csr"
        _openssl("req", *_new_key(made.key(name)), "-subj", f"/CN={name}", "-out", request)
        extensions = folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        signing = ("-CA", made.authority, "-CAkey", made.key("ca"), "-CAcreateserial", "-days", "2")
        _openssl(
            "x509", "-req", "-in", request, *signing, "-extfile", extensions, "-out", made.certificate(name)
        )
    return made


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=30)
