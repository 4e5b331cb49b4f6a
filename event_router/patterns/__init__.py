"""Patterns over Redis for services beside the router: rate limits, caches, notifications."""

from __future__ import annotations

from event_router.patterns.cache_aside import CacheAside
from event_router.patterns.presence import Presence
from event_router.patterns.rate_limiter import RateLimit, RateLimiter

__all__ = [
    "CacheAside",
    "Presence",
    "RateLimit",
    "RateLimiter",
]
