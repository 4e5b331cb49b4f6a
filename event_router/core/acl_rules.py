"""ACL rules in the words of Redis 7.0: users, their grants as selectors, as commands or as a file.

Sources: redis.io/docs/latest/commands/acl-setuser and …/operate/oss_and_stack/management/security/acl.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from event_router.core.permissions import Grant

Role = Literal["router", "relay", "operator"]
ROLES: tuple[Role, ...] = ("router", "relay", "operator")
USER_NAMES: dict[Role, str] = {
    "router": "event-router",
    "relay": "event-router-relay",
    "operator": "event-router-operator",
}
SETINFO_SINCE = (7, 2)
"""`client|setinfo` exists from here on; a server that does not know a command refuses the whole rule."""


@dataclass(frozen=True, slots=True)
class AclUser:
    """One user of a server.

    Attributes:
        role: what it is for.
        grants: what it may do; those without keys and channels stand before the selectors.
        password: what it signs in with; None leaves a placeholder, which servers refuse.
    """

    role: Role
    grants: Sequence[Grant]
    password: str | None = None

    @property
    def name(self) -> str:
        """Its name on the server."""
        return USER_NAMES[self.role]

    @property
    def rule(self) -> str:
        """The rule behind the user's name: `on`, its password's SHA-256, and what it may do."""
        plain = [command for grant in self.grants if not _places(grant) for command in grant.commands]
        words = ["on", self._secret, "-@all", *(f"+{command}" for command in dict.fromkeys(plain))]
        return " ".join([*words, *(_selector(grant) for grant in self.grants if _places(grant))])

    @property
    def setuser(self) -> str:
        """The command that makes this user what it says here, whatever it was before, in one step."""
        return f"ACL SETUSER {self.name} reset {self.rule}"

    @property
    def line_of_file(self) -> str:
        """The user's line in a file for the directive `aclfile`; such files know no comments."""
        return f"user {self.name} {self.rule}"

    @property
    def _secret(self) -> str:
        if self.password is None:
            return f"#SHA256-OF-THE-PASSWORD-OF-{self.name.upper()}"
        return f"#{hashlib.sha256(self.password.encode()).hexdigest()}"


def with_setinfo(grants: Sequence[Grant]) -> tuple[Grant, ...]:
    """Return the grants with `client|setinfo`, which clients send at each connection from 7.2 on."""
    return (Grant("names of client libraries", ("client|setinfo",)), *grants)


def _places(grant: Grant) -> tuple[str, ...]:
    return (*(f"~{key}" for key in grant.keys), *(f"&{channel}" for channel in grant.channels))


def _selector(grant: Grant) -> str:
    return f"({' '.join([*_places(grant), *(f'+{command}' for command in grant.commands)])})"
