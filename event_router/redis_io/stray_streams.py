"""Streams of a served domain that no router of these settings reads: their producers count other shards."""

from __future__ import annotations

from collections.abc import Sequence

from event_router.core.finding import Finding, note, ok, warning
from event_router.core.keys import KeyNames
from event_router.redis_client.connections import Link
from event_router.redis_client.replies import is_denied

STEPS = 500
"""SCAN is given up after so many steps of 1,000 keys each."""
PROBED = 64
"""So many shards of a domain are tried by name where SCAN is not permitted."""


async def examine_shards(link: Link, names: KeyNames, domains: Sequence[str]) -> list[Finding]:
    """Return a warning for each stream of a served domain that is not among its shards.

    Keys are scanned, in bounded steps; a user that may not SCAN tries the names of 64 shards a domain.
    Raises RedisUnavailable.
    """
    read = {stream for domain in domains for stream in names.streams(domain)}
    complete = True
    try:
        present, complete = await _scanned(link, names)
    except Exception as error:
        if not is_denied(error):
            raise
        present = await _probed(link, names, domains)
    found: list[Finding] = []
    for stream in sorted(present - read):
        domain = names.domain_of(stream)
        if domain is None or domain not in domains:
            continue
        length = await link.call("XLEN", stream)
        found.append(
            warning(
                "shards",
                f"{stream} is not read and holds entries ({length:,}): {domain} has shards here:"
                f" {len(names.streams(domain))}",
                "give producers and routers the same EVENT_ROUTER_SHARDS and EVENT_ROUTER_STREAM_TEMPLATE",
            )
        )
    if not complete:
        found.append(note("shards", f"only the first {STEPS * 1000:,} keys were looked through"))
    return found or [ok("shards", "no stream of a served domain is left unread")]


async def _scanned(link: Link, names: KeyNames) -> tuple[set[str], bool]:
    pattern = names.stream_template.replace("{domain}", "*").replace("{shard}", "*")
    if "{shard}" not in names.stream_template and not pattern.endswith("*"):
        pattern += "*"
    found: set[str] = set()
    cursor = b"0"
    for _ in range(STEPS):
        cursor, keys = await link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "stream")
        found |= {key.decode("utf-8", "replace") for key in keys}
        if cursor == b"0":
            return found, True
    return found, False


async def _probed(link: Link, names: KeyNames, domains: Sequence[str]) -> set[str]:
    candidates = [name for domain in domains for name in _possible(names, domain)]
    kinds = await link.pipeline([("TYPE", name) for name in candidates])
    return {name for name, kind in zip(candidates, kinds, strict=True) if kind == b"stream"}


def _possible(names: KeyNames, domain: str) -> list[str]:
    template = names.stream_template.replace("{domain}", domain)
    if "{shard}" in template:
        return [template.replace("{shard}", str(shard)) for shard in range(PROBED)]
    return [template, *(f"{template}:{shard}" for shard in range(PROBED))]
