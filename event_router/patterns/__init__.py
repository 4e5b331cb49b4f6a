"""Patterns over Redis for services beside the router: rate limits, caches, notifications."""

from __future__ import annotations

from event_router.core.errors import (
    AlreadyAnswered,
    DifferentRequest,
    InvalidRequest,
    InvalidSchema,
    NotTheOwner,
    RequestExpired,
    UnknownRequest,
    ValueMisfit,
)
from event_router.core.input_request import InputRequest
from event_router.patterns.cache_aside import CacheAside
from event_router.patterns.human_input import HumanInput
from event_router.patterns.notifications import Notifications, Notified
from event_router.patterns.presence import Presence
from event_router.patterns.rate_limiter import RateLimit, RateLimiter

__all__ = [
    "AlreadyAnswered",
    "CacheAside",
    "DifferentRequest",
    "HumanInput",
    "InputRequest",
    "InvalidRequest",
    "InvalidSchema",
    "NotTheOwner",
    "Notifications",
    "Notified",
    "Presence",
    "RateLimit",
    "RateLimiter",
    "RequestExpired",
    "UnknownRequest",
    "ValueMisfit",
]
