"""`event-router acl`: the rules of its users on the servers."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from event_router.cli.connecting import settings_from
from event_router.cli.failures import WrongUsage
from event_router.cli.options import Config
from event_router.cli.output import note, print_json

if TYPE_CHECKING:
    from event_router.core.acl_rules import AclUser, Role
    from event_router.core.permissions import Grant
    from event_router.settings import Settings


class Format(StrEnum):
    """The form of the rules."""

    setuser = "setuser"
    aclfile = "aclfile"
    json = "json"


class UserRole(StrEnum):
    """Which user."""

    router = "router"
    relay = "relay"
    operator = "operator"


def acl(
    user: Annotated[
        list[UserRole] | None, typer.Option("--user", help="Only this user; may be repeated.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="Commands, lines for the server's `aclfile`, or JSON.")
    ] = Format.setuser,
    password_file: Annotated[
        list[str] | None,
        typer.Option(metavar="USER=FILE", help="A user's password, of which the SHA-256 is printed."),
    ] = None,
    stream: Annotated[
        list[str] | None, typer.Option(help="A stream that handlers emit to, or a pattern of such.")
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="A channel that handlers publish on, or a pattern of such.")
    ] = None,
    server_version: Annotated[
        str, typer.Option(help="The oldest version that reads the rules; from 7.2 on `client|setinfo` is in.")
    ] = "7.0",
    config: Config = None,
) -> None:
    """Print the ACL rules of the router, its relay on the Pub/Sub Redis, and its operator."""
    from event_router.core.acl_rules import ROLES, SETINFO_SINCE

    version = re.match(r"(\d+)\.(\d+)", server_version)
    if version is None:
        raise WrongUsage(f"--server-version {server_version!r} is none; write it as 7.2")
    settings = settings_from(config)
    passwords = _passwords(password_file or [])
    roles: list[Role] = [role for role in ROLES if user is None or UserRole(role) in user]
    users = _users(
        settings,
        roles,
        passwords,
        streams=_patterns("--stream", stream),
        channels=_patterns("--channel", channel),
        setinfo=(int(version[1]), int(version[2])) >= SETINFO_SINCE,
    )
    for found in users:
        if form is Format.json:
            print_json({"user": found.name, "role": found.role, "grants": [_shown(g) for g in found.grants]})
        else:
            print(found.setuser if form is Format.setuser else found.line_of_file)
    if form is not Format.json and any(found.password is None for found in users):
        note("placeholders stand where no --password-file is given; servers refuse them until replaced")


def _users(
    settings: Settings,
    roles: list[Role],
    passwords: dict[Role, str],
    *,
    streams: list[str],
    channels: list[str],
    setinfo: bool,
) -> list[AclUser]:
    from event_router.core.acl_rules import AclUser, with_setinfo
    from event_router.core.permissions import Places, operator_grants, relay_grants, router_grants

    places = Places.of(settings.key_names, streams=streams, channels=channels)
    one_server = settings.redis_pubsub_url in (None, settings.redis_streams_url)
    grants = {
        "router": router_grants(places, publishes=one_server),
        "relay": relay_grants(places),
        "operator": operator_grants(places),
    }
    return [
        AclUser(role, with_setinfo(grants[role]) if setinfo else grants[role], passwords.get(role))
        for role in roles
    ]


def _passwords(given: list[str]) -> dict[Role, str]:
    from event_router.core.acl_rules import ROLES

    found: dict[Role, str] = {}
    for one in given:
        name, _, file = one.partition("=")
        role = next((role for role in ROLES if role == name), None)
        if role is None or not file or role in found:
            raise WrongUsage(
                f"--password-file {one!r}: write router=FILE, relay=FILE or operator=FILE, once each"
            )
        try:
            password = Path(file).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongUsage(f"--password-file {one}: {getattr(error, 'strerror', None) or error}") from None
        if not password:
            raise WrongUsage(f"--password-file {one}: the file is empty")
        found[role] = password
    return found


def _patterns(option: str, given: list[str] | None) -> list[str]:
    for pattern in given or []:
        if not pattern.isprintable() or not pattern.strip("*") or set(pattern) & set(" ()\"'"):
            raise WrongUsage(f"{option} {pattern!r} is no pattern of names; write it as orders:*")
    return given or []


def _shown(grant: Grant) -> dict[str, object]:
    return {
        "purpose": grant.purpose,
        "commands": list(grant.commands),
        "keys": list(grant.keys),
        "channels": list(grant.channels),
    }
