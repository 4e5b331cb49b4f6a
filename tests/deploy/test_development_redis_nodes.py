"""The scripts of the development Redis, run with real servers: who is primary after every kind of restart."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.deploy.renderings import KUBERNETES
from tests.environment.servers import installed_programs
from tests.environment.waiting import eventually

FOLDER = KUBERNETES / "redis"
ADDRESSES = ("127.77.0.1", "127.77.0.2", "127.77.0.3")
WITHIN = 60.0

pytestmark = pytest.mark.battery


class Node:
    """A pod of the StatefulSet: server and Sentinel, on a loopback address and a volume of its own."""

    def __init__(self, address: str, folder: Path, binaries: Path) -> None:
        self.address = address
        self._folder = folder
        self._binaries = binaries
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir()

    def start(self) -> None:
        """Start both, as the pod does. Any Sentinel is asked at the next address."""
        asked = ADDRESSES[(ADDRESSES.index(self.address) + 1) % len(ADDRESSES)]
        given = {"SELF": self.address, "FIRST": ADDRESSES[0], "SENTINELS": asked, "DATA": str(self._folder)}
        # Anew each time: a failover rewrites it, which a ConfigMap does not let it.
        conf = shutil.copy(FOLDER / "redis.conf", self._folder)
        environment = {"PATH": f"{self._binaries}:/usr/bin:/bin", "CONF": str(conf), **given}
        for script in ("start-redis.sh", "start-sentinel.sh"):
            with (self._folder / f"{script}.log").open("ab") as log:
                words = ["sh", str(FOLDER / script), "--bind", self.address]
                self._processes.append(
                    subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )

    def kill(self) -> None:
        """The node is lost, its volume is not."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def client(self, port: int = 6379) -> redis.Redis:
        return redis.Redis(
            host=self.address,
            port=port,
            decode_responses=True,
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),
        )

    def role(self) -> str:
        with self.client() as client:
            return str(client.info("replication")["role"])

    def knows_primary(self) -> str:
        """The address of the primary, by this node's Sentinel."""
        with self.client(26379) as client:
            found = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
            return str(found[0])

    def writes(self, key: str) -> bool:
        with self.client() as client:
            return bool(client.set(key, "1"))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Three nodes of the server that the manifests name."""
    server, client = installed_programs()["redis"].path, shutil.which("redis-cli")
    if server is None or client is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server or redis-cli is not installed")
        pytest.skip("redis-server or redis-cli is not installed")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "redis-server").symlink_to(server)
    (binaries / "redis-cli").symlink_to(client)
    made = [Node(address, tmp_path / address, binaries) for address in ADDRESSES]
    yield made
    for node in made:
        node.kill()


def settled(nodes: list[Node]) -> Node:
    """Wait until all nodes agree on a primary that has every other one as its replica."""

    def agreed() -> Node | None:
        (address,) = {node.knows_primary() for node in nodes}
        (primary,) = [node for node in nodes if node.address == address]
        with primary.client() as client:
            replication = client.info("replication")
        roles = {node.role() for node in nodes if node is not primary}
        complete = replication["role"] == "master" and replication["connected_slaves"] == len(nodes) - 1
        return primary if complete and roles == {"slave"} else None

    def found() -> Node | None:
        try:
            return agreed()
        except ValueError:
            return None

    primary = eventually(found, within=WITHIN, every=0.2, what="all nodes agree")
    assert primary is not None
    return primary


def knows_all(node: Node) -> bool:
    """Whether this node's Sentinel has found the other two and both replicas, as an election needs."""
    with node.client(26379) as client:
        state = client.execute_command("SENTINEL", "MASTER", "mymaster")
        found = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
        return int(found["num-other-sentinels"]) == 2 and int(found["num-slaves"]) == 2


def test_the_primary_of_the_last_failover_stays_it_whatever_restarts(nodes: list[Node]) -> None:
    for node in nodes:
        node.start()
    first = settled(nodes)
    assert first is nodes[0]
    eventually(lambda: first.writes("before"), within=WITHIN, what="a replica is there to write to")
    eventually(lambda: all(map(knows_all, nodes)), within=WITHIN, what="the Sentinels know one another")

    first.kill()
    rest = nodes[1:]
    second = settled(rest)
    eventually(lambda: second.writes("after"), within=WITHIN, what="the new primary takes writes")

    first.start()
    assert settled(nodes) is second
    with first.client() as client:
        eventually(lambda: client.get("after"), within=WITHIN, what="the old primary has followed")

    for node in nodes:
        node.kill()
    for node in nodes:
        node.start()
    assert settled(nodes) is second
    with second.client() as client:
        assert client.mget("before", "after") == ["1", "1"]
