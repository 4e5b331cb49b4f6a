"""`event-router job`: one job, live."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from event_router.cli.connecting import (
    check_served,
    complete,
    connected,
    registry_of,
    settings_from,
    url_of,
)
from event_router.cli.failures import Failed, WrongUsage
from event_router.cli.options import Config, Form, Output, StreamsUrl
from event_router.cli.output import note, print_json, printable
from event_router.runtime.cancelling import end

if TYPE_CHECKING:
    from event_router.messaging.job_watch import JobStep
    from event_router.settings import Settings

group = typer.Typer(no_args_is_help=True)

MEMBERS = ("job_id", "domain", "stage", "status", "seq", "progress", "message", "result", "timestamp", "live")


@group.callback()
def _group() -> None:
    """Follow a job."""  # without a callback typer merges a group of one command


@group.command(short_help="Show a job's latest step, then each as it happens.")
def watch(
    job_id: Annotated[str, typer.Argument(metavar="JOB_ID", help="The job.")],
    domain: Annotated[
        str | None, typer.Option(help="Its domain; without it, all. Name it where two have jobs of one id.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Give up after so many seconds; exit code 1.", min=0.001)
    ] = None,
    config: Config = None,
    streams_url: StreamsUrl = None,
    output: Form = Output.text,
) -> None:
    """Show a job's latest step, then each as it happens; exit code 0 when it is done, 1 when it failed."""
    from event_router.core.errors import InvalidEvent
    from event_router.core.payloads import check_identifier

    try:
        check_identifier("JOB_ID", job_id)
    except InvalidEvent as error:
        raise WrongUsage(str(error)) from None
    complete(_watch(job_id, domain, timeout, config, streams_url, output))


async def _watch(
    job_id: str, domain: str | None, timeout: float | None, config: Config, url: str | None, output: Output
) -> int:
    following = asyncio.create_task(_follow(settings_from(config, url), job_id, domain, output))
    try:
        done, _ = await asyncio.wait([following], timeout=timeout)
        if not done:
            raise Failed(f"job {job_id!r} was not done within {timeout:g} s")
        return 0 if following.result().succeeded else 1
    finally:
        await end(following)


async def _follow(settings: Settings, job_id: str, domain: str | None, output: Output) -> JobStep:
    from event_router.messaging.job_watch import JobWatch
    from event_router.redis_client.address import parse_url
    from event_router.redis_client.connections import open_client

    if domain is not None:
        check_served([domain], settings)
    domains = [domain] if domain is not None else settings.domains or registry_of(settings).domains
    timeout_s = settings.redis_timeout_s
    address = parse_url(settings.redis_pubsub_url or url_of(settings))
    pubsub = open_client(address, timeout_s=timeout_s, name="event-router-cli")
    try:
        async with connected(settings) as streams:
            watched = JobWatch(
                streams,
                pubsub,
                job_id,
                domains=domains,
                names=settings.key_names,
                timeout_s=timeout_s,
                unknown=lambda: note(
                    f"nothing is known of job {job_id!r} in {', '.join(domains)}; waiting for its first step"
                ),
            )
            async with contextlib.aclosing(watched.steps()) as steps:
                async for step in steps:
                    _show(step, output)
                    if step.terminal:
                        return step
        raise Failed(f"job {job_id!r} is not watched any more")
    finally:
        await pubsub.aclose(close_connection_pool=True)


def _show(step: JobStep, output: Output) -> None:
    if output is Output.json:
        print_json({name: getattr(step, name) for name in MEMBERS} | {"progress": _number(step.progress)})
    else:
        percent = f"{step.progress}%" if step.progress else ""
        words: list[Any] = [step.timestamp, step.domain, step.seq, step.stage, step.status, percent]
        words += [step.message, step.result]
        print(printable("  ".join(str(word) for word in words if word != "")))
    sys.stdout.flush()


def _number(text: str) -> float | None:
    try:
        return float(text) if "." in text or "e" in text.lower() else int(text)
    except ValueError:
        return None
