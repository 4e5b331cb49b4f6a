"""Who is present: the statuses a user can have."""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal["online", "away", "busy", "offline"]
STATUSES: tuple[Status, ...] = get_args(Status)
