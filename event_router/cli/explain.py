"""`event-router explain`: where an entry is and what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, settings_from
from event_router.cli.durations import spoken
from event_router.cli.entry_ids import entry_id_of, is_entry_id
from event_router.cli.entry_types import described
from event_router.cli.failures import Failed
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import note, print_json, print_table
from event_router.cli.streams import existing_streams

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.dead_letter_format import Letter
    from event_router.redis_io.whereabouts import Whereabouts
    from event_router.settings import Settings

MOST_COUNTED = 100_000

Row = dict[str, Any]


def explain(
    stream: Annotated[
        str,
        typer.Argument(
            metavar="[STREAM]", help="The stream, such as events:auth; without it, those that are served."
        ),
    ],
    entry_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="The entry's id, such as 1767225600123-0.")
    ] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Say where an entry is and what happened to it; exit code 1 when there never was one of this id."""
    only, written = (None, stream) if entry_id is None else (stream, entry_id)
    complete(_explain(only, entry_id_of(written, "ID"), config, streams_url, output))


async def _explain(only: str | None, entry_id: str, config: Config, url: str | None, output: Output) -> int:
    settings = settings_from(config, url)
    async with connected(settings) as client:
        streams = await existing_streams(client, settings, only)
        rows = [await _row(client, stream, entry_id, settings) for stream in streams]
        if not any(map(_has_it, rows)) and (letters := await _letters(client, streams, entry_id)):
            for letter in letters:
                note(f"{entry_id} is the id of a dead letter; its entry is {letter.origin_id}")
            rows = [await _row(client, letter.stream, letter.origin_id, settings) for letter in letters]
    if len(rows) > 1:
        rows = _likely(rows)
        if not rows:
            raise Failed(f"there never was an entry {entry_id} in {', '.join(streams)}; name another stream")
    for row in rows:
        if output is Output.json:
            print_json(row)
        else:
            print_table(("entry", ""), _lines(row))
    return 1 if all(row["state"] == "never existed" for row in rows) else 0


def _likely(rows: list[Row]) -> list[Row]:
    """Leave out streams that do not have it where others do, and such as never had it."""
    return [row for row in rows if _has_it(row)] or [row for row in rows if row["state"] != "never existed"]


def _has_it(row: Row) -> bool:
    return bool(row["in_stream"]) or row["state"] in ("pending", "dead-lettered")


async def _row(client: Redis, stream: str, entry_id: str, settings: Settings) -> Row:
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.pauses import StoredPauses
    from event_router.redis_io.whereabouts import locate

    once = SentOnce(client)
    found = await locate(once, stream, settings.group, entry_id)
    row: Row = {"stream": stream, "id": entry_id, "state": found.state, "in_stream": found.in_stream}
    if found.state == "pending":
        row |= _pending(found, settings)
    elif found.state == "undelivered":
        row |= await _undelivered(found, once)
    elif letter := await _letter(client, found):
        row |= {"state": "dead-lettered", "explanation": _moved(letter), "dead_letter": letter.row()}
    else:
        row["explanation"] = _gone(found)
    pause = (await StoredPauses(once, settings.group).read([stream])).get(stream)
    if pause is not None:
        row["paused"] = pause.reason
    if found.fields is not None:
        row |= described(settings, stream, entry_id, found.fields)
    return row


def _pending(found: Whereabouts, settings: Settings) -> Row:
    """Say who has it, since when, and when somebody tries it again, as far as its idle time tells."""
    left_ms = max(0, settings.claim_min_idle_ms - found.idle_ms)
    tried = f"started {found.deliveries} of {settings.max_deliveries} times"
    then = f"in at most {spoken(left_ms / 1000)}" if left_ms else "now"
    next_start = f"unless it is being handled, it is tried again or taken over {then}"
    return {
        "explanation": f"{found.consumer} has it, {tried}; {next_start}",
        "consumer": found.consumer,
        "consumer_idle_ms": found.consumer_idle_ms,
        "idle_ms": found.idle_ms,
        "attempts": found.deliveries,
        "max_deliveries": settings.max_deliveries,
        "tried_again_within_ms": left_ms,
    }


async def _undelivered(found: Whereabouts, once: SentOnce) -> Row:
    """Say how many entries come before it."""
    from event_router.core.entry_id import parse_id
    from event_router.redis_io.counting import count_entries

    first = f"({found.last_delivered}" if found.group_exists else "-"
    count, exact = await count_entries(once, found.stream, first, f"({found.id}", most=MOST_COUNTED)
    age_s = max(0, found.server_ms - parse_id(found.id)[0]) / 1000
    before = f"{'' if exact else 'more than '}{count}"
    why = f"{before} entries are delivered before it" if found.group_exists else "the group does not exist"
    return {
        "explanation": f"not yet delivered to the group, for {spoken(age_s)}: {why}",
        "entries_before": count,
        "entries_before_exact": exact,
    }


async def _letters(client: Redis, streams: list[str], letter_id: str) -> list[Letter]:
    """Return the dead letters of these streams that have this id themselves, if their entries are known."""
    from event_router.core.keys import dead_letter_stream
    from event_router.redis_io.dead_letters import DeadLetters

    found = [await DeadLetters(client).show(dead_letter_stream(stream), letter_id) for stream in streams]
    return [letter for letter in found if letter is not None and is_entry_id(letter.origin_id)]


async def _letter(client: Redis, found: Whereabouts) -> Letter | None:
    from event_router.core.entry_id import parse_id
    from event_router.core.keys import dead_letter_stream
    from event_router.redis_io.dead_letters import Choice, DeadLetters

    # A letter is younger than its entry, unless a producer gave the entry an id of the future.
    added_ms = parse_id(found.id)[0]
    choice = Choice(since_ms=added_ms if added_ms <= found.server_ms else None)
    letters = DeadLetters(client).letters(dead_letter_stream(found.stream), choice)
    async for letter in letters:
        if letter.origin_id == found.id:
            return letter
    return None


def _moved(letter: Letter) -> str:
    return (
        f"a dead letter since {letter.time}: {letter.reason}: {letter.error}; `dlq show {letter.id}` has it"
    )


def _gone(found: Whereabouts) -> str:
    from event_router.core.entry_id import parse_id

    if found.state == "never existed":
        if found.last_id == "0-0":
            return "the stream has never had an entry"
        if found.whole and parse_id(found.id) < parse_id(found.last_id):
            return "never added: the stream has as many entries as were ever added, and this is none of them"
        return f"no entry of this id was ever added; the newest is {found.last_id}"
    if found.state == "deleted":
        return "not in the stream although older entries are: deleted by somebody (XDEL), or never added"
    if found.state == "trimmed":
        held = f"while {found.consumer} had it" if found.consumer else "before it was delivered"
        return f"removed from the stream {held}, if it was ever added: by a producer's MAXLEN, XTRIM or XDEL"
    if found.in_stream:
        return "settled: its effects are applied, or its dead letter was written and replayed or purged since"
    return "settled and trimmed since, if it was ever added: nothing tells the two apart"


def _lines(row: Row) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = []
    for name, value in row.items():
        if name == "dead_letter":
            parts = [(key.replace("_", " "), part) for key, part in value.items() if key != "stream"]
            lines += [(f"dead letter {key}", part) for key, part in parts]
        elif name == "fields":
            lines += [(f"field {key}", part) for key, part in value]
        elif value is not None:
            shown = ("no", "yes")[value] if isinstance(value, bool) else value
            lines.append((name.replace("_", " "), shown))
    return lines
