"""Users on a server, made from the rules that `event-router acl` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import redis

from tests.environment.servers import Server
from tests.integration.cli_calls import call

PASSWORD = "opensesame"


def rules(
    *users: str, folder: Path, settings: Mapping[str, str] | None = None, options: tuple[str, ...] = ()
) -> dict[str, str]:
    """The rule of each user by its name, as a command, with a password."""
    file = folder / "password"
    file.write_text(f"{PASSWORD}\n")
    words = [word for user in users for word in ("--user", user, "--password-file", f"{user}={file}")]
    called = call("acl", *words, *options, env=settings)
    assert (called.code, called.err) == (0, "")
    return {line.split()[2]: line for line in called.out.splitlines()}


def sign_up(client: redis.Redis, rules: Mapping[str, str]) -> None:
    """Make the users, and begin an empty ACL LOG."""
    for rule in rules.values():
        client.execute_command(*rule.split())
    client.execute_command("ACL", "LOG", "RESET")


def url_for(server: Server, user: str) -> str:
    """The server's URL with a user and the password of all."""
    return server.url.replace("://", f"://{user}:{PASSWORD}@")


def as_limited(server: Server) -> str:
    """The server's URL with the user that the fixture `permit` makes."""
    return server.url.replace("://", "://limited:secret@")


def refusals(client: redis.Redis) -> list[str]:
    """What the server has refused since the log was emptied: user, reason and object of each."""
    return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in client.acl_log(100)]
