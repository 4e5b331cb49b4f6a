"""`event-router retention`: how long streams are, what holds up their trimming, and how much room is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.durations import spoken
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import print_json, print_table
from event_router.cli.streams import existing_streams

if TYPE_CHECKING:
    from event_router.redis_io.retention import Retention

COLUMNS = ("stream", "length", "settled", "headroom", "held_by_group", "held_by_entry", "held_by_consumer")


def retention(
    stream: Annotated[str | None, typer.Argument(metavar="[STREAM]", help="Only this stream.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Trim now what every group has settled, as routers do.")
    ] = False,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Show how much of each stream is settled, and which group's entry keeps the rest from being trimmed.

    Headroom is the settled part in percent: what a producer's MAXLEN may remove without a loss.
    With --apply it needs the operator's user (EVENT_ROUTER_OPERATOR_URL).
    """
    complete(_retention(stream, apply, config, streams_url, output))


async def _retention(only: str | None, apply: bool, config: Config, url: str | None, output: Output) -> None:
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.retention import retain, retention_of

    settings = settings_from(config, url)
    rows = []
    async with connected(settings, operator=apply) as client:
        once = SentOnce(client)
        for stream in await existing_streams(client, settings, only):
            least = settings.stream_min_length
            trimmed = await retain(once, stream, settings.group, least=least) if apply else None
            row = _row(await retention_of(once, stream), least, settings.group)
            rows.append(row if trimmed is None else row | {"trimmed": trimmed})
    if output is Output.json:
        for row in rows:
            print_json(row)
        return
    columns = (*COLUMNS, "held_for", *(("trimmed",) if apply else ()))
    print_table(
        [name.replace("_", " ") for name in columns],
        [[_shown(row, name) for name in columns] for row in rows],
    )


def _row(found: Retention, least: int, group: str) -> dict[str, Any]:
    from event_router.core.entry_id import parse_id

    holder = found.holder
    held_ms = None
    if holder is not None and holder.consumer:
        held_ms = max(0, found.server_ms - parse_id(holder.entry_id)[0])
    return {
        "stream": found.stream,
        "length": found.length,
        "least_length": least,
        "settled": found.settled,
        "settled_exact": found.exact,
        "headroom": round(100 * found.settled / found.length) if found.length and found.exact else None,
        "held_by_group": holder.group if holder else None,
        "held_by_entry": holder.entry_id if holder else None,
        "held_by_consumer": holder.consumer or None if holder else None,
        "held_for_ms": held_ms,
        "missing_group": None if group in {one.group for one in found.holders} else group,
        "groups": [{"group": one.group, "entry": one.entry_id} for one in found.holders],
    }


def _shown(row: dict[str, Any], name: str) -> object:
    if name == "held_for":
        return None if row["held_for_ms"] is None else spoken(row["held_for_ms"] / 1000)
    if name == "settled" and not row["settled_exact"]:
        return f"more than {row['settled']}"
    if name == "headroom":
        return "unknown" if row[name] is None and row["length"] else f"{row[name] or 0} %"
    if name == "held_by_group" and not row["groups"]:
        return "no group: nothing is trimmed" if row["length"] else ""
    if name == "held_by_group" and row["missing_group"] is not None:
        return f"{row['missing_group']} is missing: nothing is trimmed"
    return row[name]
