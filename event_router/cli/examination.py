"""What `doctor` looks at, in its order: each role's connection first, then what stands behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from event_router.cli.connecting import url_of
from event_router.cli.settings_advice import examine_settings
from event_router.core.errors import EventRouterError
from event_router.core.finding import Finding, error, note, ok, warning

if TYPE_CHECKING:
    from event_router.core.permissions import Grant, Places
    from event_router.redis_client.address import RedisAddress
    from event_router.redis_client.connections import Link
    from event_router.redis_io.stream_health import Patience
    from event_router.settings import Settings

LARGEST_OFFSET_S = 2.0
"""Clocks further apart than this make times in logs and events misleading."""
MARGIN_S = 10.0
SILENT_MS, READS_MISSED = 15_000, 3
"""Beyond the time after which something is due, routers get so much to do it."""
VARIABLES = {
    "streams": "EVENT_ROUTER_REDIS_STREAMS_URL",
    "pubsub": "EVENT_ROUTER_REDIS_PUBSUB_URL",
    "operator": "EVENT_ROUTER_OPERATOR_URL",
}


async def examine(settings: Settings, domains: Sequence[str]) -> AsyncIterator[Finding]:
    """Yield findings about the settings and every role's server. It changes nothing anywhere."""
    for finding in examine_settings(settings):
        yield finding
    addresses = _addresses(settings)
    links: dict[str, Link] = {}
    try:
        for role, address in addresses.items():
            link, findings = await _reached(role, address, settings.redis_timeout_s)
            for finding in findings:
                yield finding
            if link is not None:
                links[role] = link
        if "streams" in links:
            async for finding in _examine_streams(settings, domains, links, addresses):
                yield finding
        if "pubsub" in links:
            for finding in await _examine_pubsub(settings, links["pubsub"], addresses["pubsub"]):
                yield finding
    finally:
        for link in links.values():
            await link.close()


def _addresses(settings: Settings) -> dict[str, RedisAddress]:
    from event_router.redis_client.address import parse_url

    urls = {
        "streams": url_of(settings),
        "pubsub": settings.redis_pubsub_url,
        "operator": settings.operator_url,
    }
    return {role: parse_url(url) for role, url in urls.items() if url is not None}


async def _reached(
    role: str, address: RedisAddress, timeout_s: float
) -> tuple[Link | None, Sequence[Finding]]:
    from event_router.redis_client.connections import Link

    findings = await _examine_sentinels(role, address, timeout_s)
    try:
        link = Link(address, timeout_s=timeout_s, name="event-router-doctor")
        try:
            await link.call("PING")
        except BaseException:
            await link.close()
            raise
    except EventRouterError as problem:
        remedy = f"correct {VARIABLES[role]}, or see to it that what it names runs and answers"
        return None, [*findings, error("connection", f"{role}: {address.redacted}: {problem}", remedy)]
    return link, [*findings, ok("connection", f"{role}: {address.redacted} answers")]


async def _examine_sentinels(role: str, address: RedisAddress, timeout_s: float) -> list[Finding]:
    from event_router.redis_client.sentinels import ask_sentinels

    found = []
    for answer in await ask_sentinels(address, timeout_s=timeout_s):
        if answer.problem:
            what = f"{role}: Sentinel {answer.place} does not answer: {answer.problem}"
            found.append(warning("sentinel", what, f"start it, or take it out of {VARIABLES[role]}"))
        elif not answer.primary:
            known = ", ".join(answer.knows) or "none"
            what = f"{role}: Sentinel {answer.place} watches no {address.service!r}, but {known}"
            found.append(error("sentinel", what, f"correct the service's name in {VARIABLES[role]}"))
        else:
            found.append(ok("sentinel", f"{role}: {answer.place} names {answer.primary}"))
    return found


async def _examine_streams(
    settings: Settings, domains: Sequence[str], links: dict[str, Link], addresses: dict[str, RedisAddress]
) -> AsyncIterator[Finding]:
    from event_router.redis_io.pauses import StoredPauses
    from event_router.redis_io.server import examine_server, read_server
    from event_router.redis_io.stray_streams import examine_shards
    from event_router.redis_io.stream_findings import examine_stream, examine_types
    from event_router.redis_io.stream_health import read_health

    link = links["streams"]
    names = settings.key_names
    streams = [stream for domain in domains for stream in names.streams(domain)]
    try:
        server = await read_server(link)
        for finding in examine_server(server):
            yield finding
        if "operator" in links and (await read_server(links["operator"])).run_id != server.run_id:
            what = "EVENT_ROUTER_OPERATOR_URL is another server than EVENT_ROUTER_REDIS_STREAMS_URL"
            yield error("operator", what, "name the same server, with the operator's user")
        yield await _examine_clock(link)
        for finding in await _examine_permissions(settings, streams, domains, links, addresses):
            yield finding
        wrong = await examine_types(link, _types(settings, streams, domains))
        for finding in wrong:
            yield finding
        mistaken = {finding.what.partition(" ")[0] for finding in wrong}
        pauses = await StoredPauses(link, settings.group).read(streams)
        for pause in pauses.values():
            what = f"{pause.stream} is paused: {pause.reason or 'no reason is given'}"
            yield note("pause", what, f"`event-router resume {pause.stream}` when it is over")
        patience = _patience(settings)
        for stream in streams:
            if stream not in mistaken:
                health = await read_health(link, stream, settings.group, patience)
                for finding in examine_stream(health, patience=patience, paused=stream in pauses):
                    yield finding
        for finding in await examine_shards(links.get("operator", link), names, domains):
            yield finding
    except EventRouterError as problem:
        yield error(
            "streams",
            f"{addresses['streams'].redacted}: {problem}",
            "mend this first; what comes after it was not looked at",
        )


async def _examine_clock(link: Link) -> Finding:
    before = time.time()
    seconds, microseconds = await link.call("TIME")
    after = time.time()
    offset = int(seconds) + int(microseconds) / 1e6 - (before + after) / 2
    if abs(offset) - (after - before) / 2 > LARGEST_OFFSET_S:
        ahead = "ahead of" if offset > 0 else "behind"
        return warning(
            "clock",
            f"the server's clock is {abs(offset):,.1f} s {ahead} this machine's",
            "let both follow the same time source (NTP)",
        )
    return ok("clock", f"{abs(offset) * 1000:.0f} ms apart")


async def _examine_permissions(
    settings: Settings,
    streams: Sequence[str],
    domains: Sequence[str],
    links: dict[str, Link],
    addresses: dict[str, RedisAddress],
) -> list[Finding]:
    from event_router.core.permissions import operator_grants, router_grants

    places = _samples(settings, streams, domains)
    grants = {"streams": router_grants(places, publishes="pubsub" not in addresses)}
    if "operator" in links:
        grants["operator"] = operator_grants(places)
    return [
        finding
        for role, wanted in grants.items()
        for finding in await _dry_run(role, links[role], addresses[role], wanted)
    ]


async def _examine_pubsub(settings: Settings, link: Link, address: RedisAddress) -> list[Finding]:
    from event_router.core.permissions import relay_grants

    try:
        return await _dry_run("pubsub", link, address, relay_grants(_samples(settings, (), ())))
    except EventRouterError as problem:
        return [error("pubsub", f"{address.redacted}: {problem}", "mend this first")]


async def _dry_run(role: str, link: Link, address: RedisAddress, grants: Sequence[Grant]) -> list[Finding]:
    from event_router.redis_io.permissions import CannotTell, missing_permissions

    user = address.options.get("username") or "default"
    check = "permissions"
    try:
        missing = await missing_permissions(link, grants, user)
    except CannotTell:
        what = f"{role}: user {user} may not ask what it may do: neither EVAL nor ACL DRYRUN is permitted"
        remedy = "ask as an administrator: ACL DRYRUN USER COMMAND …"
        return [note(check, what, remedy) if role == "pubsub" else error(check, what, remedy)]
    if not missing:
        return [ok(check, f"{role}: user {user} may do all that it has to")]
    found = []
    for purpose in dict.fromkeys(one.purpose for one in missing):
        commands = dict.fromkeys(one.command for one in missing if one.purpose == purpose)
        places = dict.fromkeys(one.place for one in missing if one.purpose == purpose and one.place)
        where = f" on {', '.join(places)}" if places else ""
        what = f"{role}: user {user} may not run {', '.join(commands)}{where} ({purpose})"
        found.append(error(check, what, "give the user the rule that `event-router acl` prints"))
    return found


def _samples(settings: Settings, streams: Sequence[str], domains: Sequence[str]) -> Places:
    """Return names to try: real ones of streams, and one of each kind else."""
    from event_router.core.keys import dead_letter_stream
    from event_router.core.permissions import Places

    names = settings.key_names
    patterns = Places.of(names)
    return Places(
        streams=(*streams, "events:notification"),
        letters=tuple(map(dead_letter_stream, streams)),
        states=tuple(pattern for pattern in patterns.states if not pattern.startswith("*"))
        + tuple(names.job_state(domain, "0") for domain in domains),
        outboxes=tuple(names.outbox(domain) for domain in (*domains, "presence")),
        channels=patterns.channels,
        job_channels=patterns.job_channels,
    )


def _types(settings: Settings, streams: Sequence[str], domains: Sequence[str]) -> dict[str, str]:
    from event_router.core.keys import checkpoint_key, dead_letter_stream

    outboxes = [settings.key_names.outbox(domain) for domain in (*domains, "presence")]
    found = dict.fromkeys([*streams, *map(dead_letter_stream, streams), *outboxes], "stream")
    return found | {checkpoint_key(settings.group): "hash"}


def _patience(settings: Settings) -> Patience:
    from event_router.parts import DEAD_AFTER_LEASES
    from event_router.redis_io.stream_health import Patience

    dead_ms = DEAD_AFTER_LEASES * max(settings.claim_min_idle_ms, settings.read_block_ms)
    due_ms = settings.claim_min_idle_ms + settings.claim_interval_ms + int(MARGIN_S * 1000)
    silent_ms = max(SILENT_MS, READS_MISSED * settings.read_block_ms)
    return Patience(
        dead_ms=dead_ms, due_ms=due_ms, silent_ms=silent_ms, renewed_ms=settings.claim_min_idle_ms
    )
