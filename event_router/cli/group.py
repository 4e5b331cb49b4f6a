"""`event-router group reset`: have a group handle entries again, or leave some out."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import complete, connected, moment, settings_from
from event_router.cli.entry_ids import entry_id_of
from event_router.cli.failures import Failed, WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import note, print_json, print_table
from event_router.cli.streams import existing_stream

if TYPE_CHECKING:
    from event_router.redis_io.group_reset import ResetPlan
    from event_router.settings import Settings

group = typer.Typer(help="Set the position of the consumer group.", no_args_is_help=True)

MARGIN_MS = 2000
"""A consumer is active for its longest read, and this; while the stream is paused for this alone."""
_AN_ID = re.compile(r"(?!\d{4}-\d\d$)[0-9]+-[0-9]+")
"""An entry's id, and no year and month."""


@group.command(short_help="Set what the group is given next.")
def reset(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream, such as events:auth.")],
    to: Annotated[
        str,
        typer.Option(
            help="What is delivered next: the entry of this id, the first since a time (ISO 8601 or epoch"
            " ms), 0 for everything that still stands, $ for nothing but what is added from now on."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do it although consumers are active.")] = False,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Set what the group is given next, after saying what that does to counts.

    Pause the stream first: while consumers are active it is refused. Entries that were settled and come
    again may count twice; entries that are left out never count. Pending entries stay pending and count once.
    Needs the operator's user (EVENT_ROUTER_OPERATOR_URL).
    """
    if not (yes or dry_run or sys.stdin.isatty()):
        raise WrongUsage("a reset changes what counts: say --yes, or --dry-run to see what it would do")
    position = _position(to)
    complete(_reset(stream, position, (dry_run, yes, force), config, streams_url, output))


def _position(to: str) -> str | None:
    """Return the id behind which the group shall stand, None for the stream's end."""
    from event_router.core.entry_id import before

    if to == "$":
        return None
    if to == "0":
        return "0-0"
    if _AN_ID.fullmatch(to):
        return before(entry_id_of(to, "--to"))
    return before(f"{moment(to, '--to')}-0")


async def _reset(
    stream: str,
    position: str | None,
    said: tuple[bool, bool, bool],
    config: Config,
    url: str | None,
    output: Output,
) -> None:
    from event_router.core.errors import NoGroup
    from event_router.redis_client.sent_once import SentOnce
    from event_router.redis_io.group_reset import GroupPosition
    from event_router.redis_io.pauses import StoredPauses

    dry_run, yes, force = said
    settings = settings_from(config, url)
    async with connected(settings, operator=True) as client:
        once = SentOnce(client)
        stream = await existing_stream(client, settings, stream)
        place = GroupPosition(once, stream, settings.group)
        try:
            plan = await place.plan(position)
            _refuse_the_future(plan)
            row = _row(plan)
            if output is Output.text:
                print_table(("reset", ""), _lines(plan))
            if dry_run or not (yes or typer.confirm("Set the position?", err=True)):
                applied = False
                note("nothing changed")
            else:
                paused = stream in await StoredPauses(once, settings.group).read([stream])
                active_ms = None if force else MARGIN_MS + (0 if paused else 2 * settings.read_block_ms)
                done = await place.apply(plan, active_ms=active_ms)
                applied = done.outcome == "done"
                _refuse(done.outcome, done.detail, stream, settings)
        except NoGroup:
            raise Failed(
                f"{stream} has no group {settings.group}: a router creates it when it starts"
            ) from None
    if output is Output.json:
        print_json(row | {"applied": applied})
    elif applied:
        print(f"{stream}: done; the group stands behind {plan.position}")


def _refuse_the_future(plan: ResetPlan) -> None:
    from event_router.core.entry_id import parse_id

    if parse_id(plan.position) > parse_id(plan.last_id):
        raise Failed(
            f"--to lies behind the newest entry of {plan.stream}, {plan.last_id}: entries that are still to"
            " come would be left out; write --to '$' for what is added from now on"
        )


def _refuse(outcome: str, detail: Any, stream: str, settings: Settings) -> None:
    if outcome == "moved":
        raise Failed(
            f"the group has moved to {detail[0]} meanwhile, nothing changed: try again, or pause {stream}"
        )
    if outcome == "active":
        several = "consumers are" if len(detail) > 1 else "consumer is"
        raise Failed(
            f"{len(detail)} {several} active in {settings.group} ({', '.join(detail[:3])}), nothing"
            f" changed: `event-router pause {stream} --reason reset --for 10m`, wait a few seconds and try"
            " again, or --force"
        )


def _row(plan: ResetPlan) -> dict[str, Any]:
    return {
        "stream": plan.stream,
        "group": plan.group,
        "delivered": plan.delivered,
        "position": plan.position,
        "handled_again": plan.again,
        "counted_twice_at_most": plan.counted_twice_at_most,
        "skipped": plan.skipped,
        "pending": plan.pending,
        "pending_again": plan.pending_again,
    }


def _lines(plan: ResetPlan) -> list[tuple[str, str]]:
    from event_router.core.entry_id import parse_id

    lines = [
        ("stream", f"{plan.stream}, group {plan.group}"),
        ("stands", f"behind {plan.delivered} now, behind {plan.position} then"),
    ]
    if plan.again:
        lines += [
            ("handled again", f"{plan.again} entries"),
            (
                "may count twice",
                f"{plan.counted_twice_at_most} of them: they are settled, and their acknowledgement no longer"
                " protects them (effects behind a `once` mark or of the latest event stay as they are)",
            ),
        ]
    if plan.skipped:
        lines.append(("left out", f"{plan.skipped} entries, which this group never handles"))
    if not plan.again and not plan.skipped:
        lines.append(("effect", "none: the group stands there"))
    if plan.pending:
        again = f"; {plan.pending_again} of them are delivered again" if plan.pending_again else ""
        lines.append(("pending", f"{plan.pending} entries stay with their consumers and count once{again}"))
    if plan.first_id and parse_id(plan.position) < parse_id(plan.first_id) and plan.again:
        lines.append(("gone", f"whatever was before {plan.first_id} is trimmed and does not come again"))
    return [*lines, ("checkpoint", "set with it, so that a group that is created anew stands there too")]
