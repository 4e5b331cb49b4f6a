"""The Lua scripts, each in a file of its own in the folder `scripts` of the package that uses it.

What several scripts share is a fragment in the folder `lua`, put before a script's own text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Protocol

from event_router.redis_client.replies import NoScript


class Caller(Protocol):
    """What runs a command: a link, or a client behind `ClientCaller`."""

    async def call(self, *command: Any) -> Any:
        """Send one command and return its reply; errors are the router's own."""


class Script:
    """One script: called by its hash, sent whole once a server does not know it.

    Args:
        fragments: names of files in the folder `lua` whose functions the script uses.
    """

    def __init__(
        self, name: str, package: str = "event_router.redis_io", fragments: Sequence[str] = ()
    ) -> None:
        self.name = name
        text = resources.files(package).joinpath("scripts", f"{name}.lua").read_text("utf-8")
        # Only in the first line does Redis read `#!lua`.
        header, newline, body = text.partition("\n")
        self.text = "".join((header, newline, *map(_fragment, fragments), body))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Script {self.name}>"

    async def run(self, caller: Caller, keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> Any:
        """Run the script and return its reply. Raises what `Link.call` raises."""
        try:
            return await caller.call("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScript:
            # EVAL also loads it. After SCRIPT FLUSH, a failover or a restart.
            return await caller.call("EVAL", self.text, len(keys), *keys, *args)


def _fragment(name: str) -> str:
    return resources.files("event_router").joinpath("lua", f"{name}.lua").read_text("utf-8")
