"""The test's side of the misbehaving handlers in `apps/work.py`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import redis

from tests.conftest import RouterFactory
from tests.environment.routers import Router

APP_DIR = Path(__file__).parent / "apps"
WORK, OTHER = "events:work", "events:other"


class Start(NamedTuple):
    """One start of a handler, as the handler itself saw it."""

    pod: str
    stream: str
    entry_id: str
    attempt: int


class Workplace:
    """A folder of flags, routers that run the work handlers over it, and the work they are given."""

    def __init__(self, directory: Path, new_router: RouterFactory, client: redis.Redis) -> None:
        self._directory = directory
        self._new_router = new_router
        self._client = client
        directory.mkdir()

    def router(self, streams_url: str, pod: str, **settings: object) -> Router:
        """A router of both work domains, not yet started."""
        handlers = "work:WorkHandler,work:OtherHandler"
        variables = {"WORK_DIR": str(self._directory)}
        settings = {"APP_DIR": APP_DIR, "HANDLERS": handlers} | settings
        return self._new_router(streams_url, pod, variables=variables, **settings)

    def give(self, kind: str, things: list[str], stream: str = WORK) -> list[str]:
        """Publish one event of a type for each thing; their entry ids."""
        pipeline = self._client.pipeline(transaction=False)
        for thing in things:
            pipeline.xadd(stream, {"type": kind, "thing_id": thing})
        return [str(entry_id) for entry_id in pipeline.execute()]

    def counts(self, things: list[str]) -> dict[str, int]:
        """How often each thing was counted, those that were."""
        pipeline = self._client.pipeline(transaction=False)
        for thing in things:
            pipeline.hget(f"state:thing:{thing}", "count")
        return {
            thing: int(count)
            for thing, count in zip(things, pipeline.execute(), strict=True)
            if count is not None
        }

    def open_gate(self) -> None:
        """Let waiting handlers go on."""
        (self._directory / "gate-open").touch()

    def dependency_fails(self) -> None:
        """From now on `dependent` events fail."""
        (self._directory / "dependency-down").touch()

    def dependency_works(self) -> None:
        """The dependency is back."""
        (self._directory / "dependency-down").unlink()

    def starts(self, *entry_ids: str) -> list[Start]:
        """The handler starts so far, of these entries or of all."""
        file = self._directory / "starts"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [
            Start(pod, stream, entry_id, int(attempt))
            for pod, stream, entry_id, attempt in map(str.split, lines)
        ]
        return [start for start in found if not entry_ids or start.entry_id in entry_ids]
