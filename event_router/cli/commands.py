"""All commands under one name."""

from __future__ import annotations

import typer

from event_router.cli.acl import acl
from event_router.cli.check import check
from event_router.cli.consumers import group as consumers
from event_router.cli.demo import demo
from event_router.cli.dlq import group as dlq
from event_router.cli.docs import docs
from event_router.cli.doctor import doctor
from event_router.cli.explain import explain
from event_router.cli.group import group as group_
from event_router.cli.input import group as input_
from event_router.cli.job import group as job
from event_router.cli.pause import pause, resume
from event_router.cli.presence import presence
from event_router.cli.publish import publish
from event_router.cli.retention import retention
from event_router.cli.run import run
from event_router.cli.state import group as state
from event_router.cli.status import pending, status
from event_router.cli.tail import tail

app = typer.Typer(
    name="event-router",
    help="Routes Redis Streams events to handlers and commits each event's effects exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run)
app.command()(check)
app.command()(publish)
app.add_typer(state, name="state")
app.command()(status)
app.command()(pending)
app.command()(explain)
app.command()(tail)
app.command()(pause)
app.command()(resume)
app.add_typer(group_, name="group")
app.add_typer(consumers, name="consumers")
app.command()(retention)
app.add_typer(job, name="job")
app.add_typer(dlq, name="dlq")
app.command()(presence)
app.add_typer(input_, name="input")
app.command()(doctor)
app.command()(acl)
app.command()(docs)
app.command()(demo)
