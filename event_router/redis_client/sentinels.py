"""Each Sentinel of an address, asked by itself: who answers, and whom it names as the primary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from event_router.core.errors import EventRouterError
from event_router.redis_client.address import RedisAddress
from event_router.redis_client.connections import SENTINEL_TIMEOUT_S, Link


@dataclass(frozen=True, slots=True)
class SentinelAnswer:
    """What one Sentinel said.

    Attributes:
        place: its host and port.
        primary: host and port of the primary; empty where it names none.
        knows: the services it watches.
        problem: why it does not answer; empty if it does.
    """

    place: str
    primary: str = ""
    knows: tuple[str, ...] = ()
    problem: str = ""


async def ask_sentinels(address: RedisAddress, *, timeout_s: float) -> list[SentinelAnswer]:
    """Ask every Sentinel for the primary of the address's service; it raises for none of them."""
    return [await _ask(address, host, port, timeout_s) for host, port in address.sentinels]


async def _ask(address: RedisAddress, host: str, port: int, timeout_s: float) -> SentinelAnswer:
    place = f"{host}:{port}"
    link = Link(
        RedisAddress(place, {**_own_options(address), "host": host, "port": port}, tls=address.tls),
        timeout_s=min(timeout_s, SENTINEL_TIMEOUT_S),
        name="event-router-doctor",
    )
    try:
        # What redis-py asks too, so that a Sentinel's user needs no more for it.
        listed: Any = await link.call("SENTINEL", "MASTERS")
    except EventRouterError as error:
        return SentinelAnswer(place, problem=str(error))
    finally:
        await link.close()
    primaries = [_fields(flat) for flat in listed]
    found = next((one for one in primaries if one["name"] == address.service), None)
    return SentinelAnswer(
        place,
        primary=f"{found['ip']}:{found['port']}" if found else "",
        knows=tuple(sorted(one["name"] for one in primaries)),
    )


def _fields(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [part.decode("utf-8", "replace") for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _own_options(address: RedisAddress) -> dict[str, Any]:
    options = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
    if address.tls:
        from redis.asyncio.connection import SSLConnection

        options["connection_class"] = SSLConnection
    return options | {
        "client_name": None,  # CLIENT SETNAME would be a permission more
        "username": address.options.get("sentinel_username"),
        "password": address.options.get("sentinel_password"),
    }
