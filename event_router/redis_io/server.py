"""What the server is: refused where the promise cannot hold, warned about where it is in danger."""

from __future__ import annotations

from event_router.core.errors import ConfigurationError
from event_router.redis_client.connections import Link

OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (7, 2)


async def check_server(link: Link) -> list[str]:
    """Return warnings about the server's configuration, each with its remedy.

    Raises:
        ConfigurationError: it is too old, or a cluster.
        RedisUnavailable: no reply, or INFO is not permitted.
    """
    info = _parsed(await link.call("INFO"))
    valkey = info.get("valkey_version")
    version = valkey or info.get("redis_version", "0")
    name, oldest = ("Valkey", OLDEST_VALKEY) if valkey else ("Redis", OLDEST_REDIS)
    if _number(version) < oldest:
        raise ConfigurationError(
            f"{name} {version} is too old: event-router needs Redis 7.0 or Valkey 7.2 or newer"
        )
    if info.get("cluster_enabled") == "1":
        raise ConfigurationError("Redis Cluster is not supported: use a single primary, or Sentinel")
    warnings = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        warnings.append(f"maxmemory-policy is {policy}: streams and state may be evicted; set noeviction")
    if info.get("aof_enabled") == "0":
        warnings.append("no append-only file: a restart of Redis loses events; set appendonly yes")
    return warnings


def _parsed(raw: bytes) -> dict[str, str]:
    lines = raw.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _number(version: str) -> tuple[int, int]:
    parts = [int(part) if part.isdecimal() else 0 for part in version.split(".")[:2]]
    return (parts[0], parts[1] if len(parts) > 1 else 0)
