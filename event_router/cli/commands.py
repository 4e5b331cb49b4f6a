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
from event_router.cli.version import options

app = typer.Typer(
    name="event-router",
    help="Routes Redis Streams events to handlers and commits each event's effects exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback()(options)
app.command(short_help="Route events until stopped.")(run)
app.command(short_help="Show and check settings and handlers, without a server.")(check)
app.command(short_help="Publish one event, or those of a file.")(publish)
app.add_typer(state, name="state")
app.command(short_help="Show each stream with its lag, pending entries and dead letters.")(status)
app.command()(pending)
app.command(short_help="Say where an entry is and what happened to it.")(explain)
app.command(short_help="Show events as they are added, until Ctrl-C.")(tail)
app.command(short_help="Have all routers stop reading a stream for a while.")(pause)
app.command(short_help="End a pause.")(resume)
app.add_typer(group_, name="group")
app.add_typer(consumers, name="consumers")
app.command(short_help="Show what is settled in each stream, and what holds up trimming.")(retention)
app.add_typer(job, name="job")
app.add_typer(dlq, name="dlq")
app.command(short_help="List who is online, away or busy, or show one user.")(presence)
app.add_typer(input_, name="input")
app.command(short_help="Look for troubles in settings, servers, permissions and streams.")(doctor)
app.command(short_help="Print the ACL rules of the router, its relay and its operator.")(acl)
app.command(short_help="Write pages about the settings and events, and an AsyncAPI file.")(docs)
app.command(short_help="Watch the router at work on synthetic traffic.")(demo)
