"""Settings that are allowed, each by itself, and do not go together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from event_router.core.finding import Finding, note, ok, warning

if TYPE_CHECKING:
    from event_router.settings import Settings

CHECK = "settings"


def examine_settings(settings: Settings) -> list[Finding]:
    """Return what in the settings contradicts itself or is without effect."""
    found = [
        *_claims(settings),
        *_limits(settings),
        *_environment(settings),
    ]
    return found or [ok(CHECK, "no contradictions")]


def _claims(settings: Settings) -> list[Finding]:
    idle_s = settings.claim_min_idle_ms / 1000
    found = []
    if idle_s <= settings.redis_timeout_s:
        found.append(
            warning(
                CHECK,
                f"CLAIM_MIN_IDLE_MS = {settings.claim_min_idle_ms} is not above REDIS_TIMEOUT_S ="
                f" {settings.redis_timeout_s:g}: one slow command, and others take over what is in hand",
                "make CLAIM_MIN_IDLE_MS several times as long as REDIS_TIMEOUT_S",
            )
        )
    if idle_s < settings.handler_timeout_s:
        found.append(
            note(
                CHECK,
                f"CLAIM_MIN_IDLE_MS = {settings.claim_min_idle_ms} is below HANDLER_TIMEOUT_S ="
                f" {settings.handler_timeout_s:g}: a handler that blocks its process for longer runs twice at"
                " once (its effects count once)",
                "make CLAIM_MIN_IDLE_MS the longer one if handlers act outside Redis",
            )
        )
    if settings.claim_interval_ms > 10 * settings.claim_min_idle_ms:
        found.append(
            note(
                CHECK,
                f"CLAIM_INTERVAL_MS = {settings.claim_interval_ms} is far above CLAIM_MIN_IDLE_MS ="
                f" {settings.claim_min_idle_ms}: most of what is due waits for the probes in between",
                "make them alike",
            )
        )
    return found


def _limits(settings: Settings) -> list[Finding]:
    in_flight = settings.max_in_flight
    found = [
        note(
            CHECK,
            f"{name.upper()} = {getattr(settings, name)} is never reached: MAX_IN_FLIGHT is {in_flight}",
            "make MAX_IN_FLIGHT larger, or the other smaller",
        )
        for name in ("read_count", "concurrency", "commit_max_events")
        if getattr(settings, name) > in_flight
    ]
    if settings.unknown_events == "ack":
        found.append(
            note(CHECK, "UNKNOWN_EVENTS = ack: events whose type no handler takes are settled and gone")
        )
    return found


def _environment(settings: Settings) -> list[Finding]:
    if settings.embedded and "POD_NAME" in os.environ:
        return [
            warning(
                CHECK,
                "EMBEDDED is on in a pod: state lives and dies with its volume, and each pod has its own",
                "set REDIS_STREAMS_URL instead",
            )
        ]
    return []
