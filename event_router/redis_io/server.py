"""What the server is: refused where the promise cannot hold, warned about where it is in danger."""

from __future__ import annotations

from dataclasses import dataclass

from event_router.core.errors import ConfigurationError
from event_router.core.finding import Finding, error, note, ok, warning
from event_router.redis_client.script import Caller

OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (7, 2)
MEMORY_FULL = 0.9
"""Share of `maxmemory` above which writes may be refused soon."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server as it describes itself. Source: INFO.

    Attributes:
        name: Redis or Valkey.
        run_id: differs between servers, and from start to start.
        eviction: the `maxmemory-policy`.
        memory: used bytes.
        memory_limit: `maxmemory` in bytes; 0 is none.
        append_only: whether there is an append-only file; None where it is not said.
        write_failed: what last failed to be written to disk; empty if nothing did.
        replica_of: the primary's address if this is a replica, else empty.
    """

    name: str
    version: str
    run_id: str
    cluster: bool
    eviction: str
    memory: int
    memory_limit: int
    append_only: bool | None
    write_failed: str
    replica_of: str

    @property
    def is_too_old(self) -> bool:
        """Whether it lacks what the router needs."""
        return _number(self.version) < (OLDEST_VALKEY if self.name == "Valkey" else OLDEST_REDIS)


async def read_server(caller: Caller) -> ServerInfo:
    """Ask the server. Raises RedisUnavailable: no reply, or INFO is not permitted."""
    info = _parsed(await caller.call("INFO"))
    valkey = info.get("valkey_version")
    failed = [
        what
        for what, field in (
            ("append-only file", "aof_last_write_status"),
            ("snapshot", "rdb_last_bgsave_status"),
        )
        if info.get(field, "ok") != "ok"
    ]
    return ServerInfo(
        name="Valkey" if valkey else "Redis",
        version=valkey or info.get("redis_version", "0"),
        run_id=info.get("run_id", ""),
        cluster=info.get("cluster_enabled") == "1",
        eviction=info.get("maxmemory_policy", "noeviction"),
        memory=int(info.get("used_memory", "0")),
        memory_limit=int(info.get("maxmemory", "0")),
        append_only={"0": False, "1": True}.get(info.get("aof_enabled", "")),
        write_failed=" and ".join(failed),
        replica_of=f"{info.get('master_host')}:{info.get('master_port')}"
        if info.get("role") == "slave"
        else "",
    )


async def check_server(caller: Caller) -> list[str]:
    """Return warnings about the server's configuration, each with its remedy.

    Raises:
        ConfigurationError: it is too old, or a cluster.
        RedisUnavailable: no reply, or INFO is not permitted.
    """
    server = await read_server(caller)
    if refused := refusal(server):
        raise ConfigurationError(f"{refused.what}: {refused.remedy}")
    return [f"{found.what}; {found.remedy}" for found in dangers(server)]


def refusal(server: ServerInfo) -> Finding | None:
    """Return why no router can work with this server."""
    if server.is_too_old:
        return error(
            "version",
            f"{server.name} {server.version} is too old",
            "event-router needs Redis 7.0 or Valkey 7.2 or newer",
        )
    if server.cluster:
        return error("version", "Redis Cluster is not supported", "use a single primary, or Sentinel")
    return None


def dangers(server: ServerInfo) -> list[Finding]:
    """Return what puts streams and state in danger by the server's configuration."""
    found = []
    if server.eviction != "noeviction" and server.memory_limit:
        what = f"maxmemory-policy is {server.eviction}: streams and state may be evicted"
        found.append(error("eviction", what, "set noeviction"))
    if server.append_only is False:
        what = "no append-only file: a restart of Redis loses events"
        found.append(warning("persistence", what, "set appendonly yes"))
    return found


def examine_server(server: ServerInfo) -> list[Finding]:
    """Return findings about a server in the streams role."""
    if refused := refusal(server):
        return [refused]
    endangered = dangers(server)
    found = [ok("version", f"{server.name} {server.version}"), *endangered]
    known = {finding.check for finding in endangered}
    if "eviction" not in known:
        limit = f", maxmemory {server.memory_limit:,} bytes" if server.memory_limit else ", no maxmemory"
        found.append(ok("eviction", f"maxmemory-policy {server.eviction}{limit}"))
    if server.memory_limit and server.memory > MEMORY_FULL * server.memory_limit:
        found.append(
            warning(
                "memory",
                f"{server.memory / server.memory_limit:.0%} of maxmemory are used: soon writes are refused",
                "raise maxmemory, or let routers catch up so that retention trims",
            )
        )
    if server.write_failed:
        found.append(
            error(
                "persistence",
                f"the {server.write_failed} could not be written: the server may refuse writes",
                "look at the server's disk and its log",
            )
        )
    elif server.append_only:
        found.append(ok("persistence", "an append-only file"))
    elif server.append_only is None:
        found.append(note("persistence", "the server does not say whether it has an append-only file"))
    if server.replica_of:
        found.append(
            error(
                "primary",
                f"this is a replica of {server.replica_of}: it refuses writes",
                "name the primary in the URL, or the Sentinels, which know it",
            )
        )
    return found


def _parsed(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _number(version: str) -> tuple[int, int]:
    parts = [int(part) if part.isdecimal() else 0 for part in version.split(".")[:2]]
    return (parts[0], parts[1] if len(parts) > 1 else 0)
