"""`event-router doctor`: what is wrong around the router, and what to do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from event_router.cli.connecting import complete, registry_of, settings_from
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import print_json, print_table

if TYPE_CHECKING:
    from event_router.settings import Settings

COLUMNS = ("severity", "check", "what", "remedy")


class FailOn(StrEnum):
    """From which severity on the exit code is 1."""

    warning = "warning"
    error = "error"


def doctor(
    fail_on: Annotated[FailOn, typer.Option(help="How bad it must be for exit code 1.")] = FailOn.error,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Look at settings, servers, permissions, streams and groups; exit code 1 when something is wrong.

    It reads only. With EVENT_ROUTER_OPERATOR_URL it sees more: streams that no router reads.
    """
    settings = settings_from(config, streams_url)
    registry = registry_of(settings)
    complete(_doctor(settings, list(settings.domains or registry.domains), fail_on, output))


async def _doctor(settings: Settings, domains: list[str], fail_on: FailOn, output: Output) -> int:
    from event_router.cli.examination import examine

    findings = [finding async for finding in examine(settings, domains)]
    wrong = any(finding.is_at_least(fail_on.value) for finding in findings)
    rows = [{name: getattr(finding, name) for name in COLUMNS} for finding in findings]
    if output is Output.json:
        print_json({"good": not wrong, "findings": rows})
    else:
        print_table(COLUMNS, [list(row.values()) for row in rows])
    return 1 if wrong else 0
