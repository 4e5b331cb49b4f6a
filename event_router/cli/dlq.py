"""`event-router dlq`: the dead letters."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, moment, settings_from
from event_router.cli.failures import Failed, WrongUsage
from event_router.cli.options import Config, Form, Output, Stream, StreamsUrl
from event_router.cli.output import note, print_json, print_table
from event_router.cli.streams import existing_streams

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from event_router.redis_io.dead_letters import Choice
    from event_router.settings import Settings

group = typer.Typer(help="List, show, replay or delete dead letters.", no_args_is_help=True)

COLUMNS = ("stream", "id", "origin_id", "type", "reason", "error", "deliveries", "time")
Ids = Annotated[list[str] | None, typer.Option("--id", help="This letter's id; may be repeated.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only letters with this reason.")]
Type = Annotated[str | None, typer.Option("--type", help="Only events of this type.")]
Since = Annotated[str | None, typer.Option("--since", help="Dead since then: ISO 8601 or epoch ms.")]
Until = Annotated[str | None, typer.Option("--until", help="Dead until then: ISO 8601 or epoch ms.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and do nothing.")]


@group.command("list")
def list_(
    ids: Ids = None,
    reason: Reason = None,
    event_type: Type = None,
    since: Since = None,
    until: Until = None,
    stream: Stream = None,
    limit: Annotated[int | None, typer.Option(help="At most so many letters.", min=1)] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """List dead letters, oldest first."""
    choice = _choice(ids, reason, event_type, since, until)
    complete(_list(choice, stream, limit, config, streams_url, output))


async def _list(
    choice: Choice, only: str | None, limit: int | None, config: Path | None, url: str | None, output: Output
) -> None:
    from event_router.redis_io.dead_letters import DeadLetters

    settings = settings_from(config, url)
    rows: list[dict[str, Any]] = []
    count = 0
    async with connected(settings) as client:
        dead_letters = DeadLetters(client)
        for dlq in await _dead_letter_streams(client, settings, only):
            async for letter in dead_letters.letters(dlq, choice):
                if limit is not None and count == limit:
                    break
                count += 1
                if output is Output.json:
                    print_json(letter.row())
                else:
                    rows.append(letter.row())
    if output is Output.text:
        shown = [[row[name] for name in COLUMNS] for row in rows]
        print_table([name.replace("_", " ") for name in COLUMNS], shown)


@group.command(short_help="Show one dead letter with the fields of its entry.")
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the letter.")],
    stream: Stream = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Show one dead letter with the fields of its entry; exit code 1 when there is none."""
    _choice([letter_id])
    complete(_show(letter_id, stream, config, streams_url, output))


async def _show(
    letter_id: str, only: str | None, config: Path | None, url: str | None, output: Output
) -> None:
    from event_router.redis_io.dead_letter_format import text
    from event_router.redis_io.dead_letters import DeadLetters

    settings = settings_from(config, url)
    async with connected(settings) as client:
        dead_letters = DeadLetters(client)
        searched = await _dead_letter_streams(client, settings, only)
        found = [letter for dlq in searched if (letter := await dead_letters.show(dlq, letter_id))]
    if not found:
        raise Failed(
            f"there is no dead letter {letter_id} in {', '.join(searched)}; `dlq list` shows their ids, and"
            f" `explain STREAM {letter_id}` finds the letter of an entry with this id"
        )
    for letter in found:
        fields = [[text(name), text(value)] for name, value in letter.fields]
        row = letter.row() | {"consumer": letter.consumer}
        if output is Output.json:
            print_json(row | {"fields": fields})
        else:
            print_table(("letter", ""), list(row.items()))
            print()
            print_table(("field", "value"), fields)


@group.command(short_help="Give dead letters back to their streams.")
def replay(
    ids: Ids = None,
    reason: Reason = None,
    event_type: Type = None,
    since: Since = None,
    until: Until = None,
    stream: Stream = None,
    dry_run: DryRun = False,
    rate: Annotated[float, typer.Option(help="At most so many letters a second.", min=0.001)] = 1000.0,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Give dead letters back to their streams; what fails again returns and is not tried twice."""
    choice = _choice(ids, reason, event_type, since, until)
    complete(_replay(choice, stream, dry_run, rate, config, streams_url, output))


async def _replay(
    choice: Choice,
    only: str | None,
    dry_run: bool,
    rate: float,
    config: Path | None,
    url: str | None,
    output: Output,
) -> int:
    from event_router.redis_io.dead_letters import DeadLetters

    settings = settings_from(config, url)
    counts: dict[str, int] = {}
    try:
        async with connected(settings, operator=True) as client:
            for dlq in await _dead_letter_streams(client, settings, only):
                async for done in DeadLetters(client).replay(dlq, choice, dry_run=dry_run, rate=rate):
                    counts[done.outcome] = counts.get(done.outcome, 0) + 1
                    letter = done.letter
                    if done.why:
                        note(f"{letter.dlq} {letter.id} stays: {done.why}")
                    if output is Output.json:
                        names = {"stream": letter.stream, "id": letter.id, "origin_id": letter.origin_id}
                        print_json(names | {"outcome": done.outcome, "entry_id": done.entry_id})
    except BaseException:
        if counts:  # what was given back before the error stays given back
            note(_counted(counts))
        raise
    (print if output is Output.text else note)(_counted(counts))
    return 1 if choice.ids and not counts else 0


@group.command()
def purge(
    ids: Ids = None,
    reason: Reason = None,
    event_type: Type = None,
    since: Since = None,
    until: Until = None,
    stream: Stream = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Delete dead letters for good."""
    choice = _choice(ids, reason, event_type, since, until)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise WrongUsage(
            "purge deletes for good: say --yes, or --dry-run to see how many letters it is about"
        )
    complete(_purge(choice, stream, dry_run, yes, config, streams_url, output))


async def _purge(
    choice: Choice,
    only: str | None,
    dry_run: bool,
    yes: bool,
    config: Path | None,
    url: str | None,
    output: Output,
) -> None:
    from event_router.redis_io.dead_letters import DeadLetters

    settings = settings_from(config, url)
    async with connected(settings, operator=True) as client:
        streams = await _dead_letter_streams(client, settings, only)
        dead_letters = DeadLetters(client)
        if not (yes or dry_run):
            count = sum([await dead_letters.purge(dlq, choice, dry_run=True) for dlq in streams])
            if not count or not typer.confirm(f"Delete {count} dead letters for good?", err=True):
                note("nothing deleted")
                return
        deleted = {dlq: await dead_letters.purge(dlq, choice, dry_run=dry_run) for dlq in streams}
    if output is Output.json:
        for dlq, count in deleted.items():
            print_json({"stream": dlq.removeprefix("dlq:"), "purged": count, "dry_run": dry_run})
    else:
        print(f"{sum(deleted.values())} {'would be deleted' if dry_run else 'deleted'}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no letters chosen"


def _choice(
    ids: Iterable[str] | None,
    reason: str | None = None,
    event_type: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Choice:
    from event_router.core.outcome import REASONS
    from event_router.redis_io.dead_letters import Choice

    if reason is not None and reason not in REASONS:
        raise WrongUsage(f"--reason {reason!r} is none; there are {', '.join(REASONS)}")
    for letter_id in ids or ():
        if not re.fullmatch(r"\d{1,19}-\d{1,19}", letter_id):
            raise WrongUsage(
                f"{letter_id!r} is no id of a letter; write it as `dlq list` does, such as 1767225600123-0"
            )
    begin, end = moment(since, "--since"), moment(until, "--until")
    if begin is not None and end is not None and begin > end:
        raise WrongUsage("--since is later than --until")
    return Choice(frozenset(ids or ()), reason, event_type, begin, end)


async def _dead_letter_streams(client: Redis, settings: Settings, only: str | None) -> list[str]:
    from event_router.core.keys import dead_letter_stream

    return [dead_letter_stream(stream) for stream in await existing_streams(client, settings, only)]
