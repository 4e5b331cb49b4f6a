"""The state for programs beside the router: read and written at once, outside every commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.client import NEVER_DECODE

from event_router.core.errors import InvalidEvent, RedisRefused, StateError
from event_router.core.hash_effects import INT64_MAX, INT64_MIN
from event_router.core.keys import KeyNames
from event_router.core.payloads import check_identifier
from event_router.core.values import encode_value, text_bytes, ttl_in_ms
from event_router.redis_client.replies import translated
from event_router.redis_client.script import Script
from event_router.redis_client.sent_once import SentOnce


class StateKVStore:
    """The entities in the hashes `{prefix}:{entity_type}:{entity_id}`, such as `state:user:123`.

    Effects are immediate and belong to no event: a handler that is run twice writes twice here. Handlers
    use their `StateTransaction` instead; a handler's read that a write from here overtakes is found out
    by the commit, and the handler runs again.

    Writes are sent once. Where the reply is lost they raise OutcomeUnknown, and are not repeated, whatever
    retries the client is set to. Every method raises RedisUnavailable when Redis does not answer or refuses
    for now, RedisRefused for what trying again will not mend (the key is no hash, a field no integer), and
    StateError for names and values that cannot be stored.

    Args:
        redis: a client of the Redis that holds the state; its address, user and timeout are used. It may
            decode its replies or not.
        prefix: the router's `STATE_PREFIX`.
    """

    def __init__(self, redis: Redis, prefix: str = "state") -> None:
        self._redis = redis
        self._once = SentOnce(redis)
        self._names = KeyNames(state_prefix=prefix)
        self._set = Script("set_state")

    def __repr__(self) -> str:
        return f"<StateKVStore {self._names.state_prefix}:*>"

    async def get(self, entity_type: str, entity_id: str | int) -> dict[str, str] | None:
        """Return all fields of an entity as text, or None where there is none.

        Nothing is hidden: beside each field that handlers write with `set_latest` stands
        `{field}:version`, which is `{time_ms}:{entry id}@{stream}` of the event that wrote it. Bytes that
        are not UTF-8 come as surrogate escapes.
        """
        key = self._key(entity_type, entity_id)
        try:
            found: Any = await self._redis.execute_command("HGETALL", key, **{NEVER_DECODE: True})
        except Exception as error:
            raise _named(key, error) from error
        fields = {_text(name): _text(value) for name, value in found.items()}
        return fields or None

    async def set(
        self, entity_type: str, entity_id: str | int, data: Mapping[str, object], ttl: float | None = None
    ) -> None:
        """Set fields of an entity; those not named stay as they are.

        Args:
            data: text, bytes, numbers, booleans, datetimes and dates, stored as handlers store them.
            ttl: the entity's time to live from now on, in seconds, set in the same step; None leaves it.

        Raises:
            OutcomeUnknown: no reply came. Setting the same again is safe.
        """
        key = self._key(entity_type, entity_id)
        if not data:
            raise StateError(f"{key}: no fields to set")
        ttl_ms = "" if ttl is None else str(ttl_in_ms(ttl, key))
        flat = [text_bytes(part) for name, value in data.items() for part in (name, encode_value(value))]
        try:
            await self._set.run(self._once, (key,), (ttl_ms, *flat))
        except RedisRefused as error:
            raise _named(key, error) from error

    async def increment(self, entity_type: str, entity_id: str | int, field: str, amount: int = 1) -> int:
        """Add to an integer field (64-bit, absent counts as 0) and return the sum.

        Raises:
            OutcomeUnknown: no reply came; the field may or may not have been incremented. Whoever tries
                again may count twice: decide by reading, or let a handler count instead.
        """
        key = self._key(entity_type, entity_id)
        if type(amount) is not int or not INT64_MIN <= amount <= INT64_MAX:
            raise StateError(f"{key} {field}: {amount!r} is no 64-bit integer")
        try:
            return int(await self._once.call("HINCRBY", key, text_bytes(field), amount))
        except RedisRefused as error:
            raise _named(f"{key} {field}", error) from error

    def _key(self, entity_type: str, entity_id: str | int) -> str:
        try:
            return self._names.entity(entity_type, check_identifier("entity_id", entity_id))
        except InvalidEvent as error:
            raise StateError(str(error)) from None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _named(what: str, error: Exception) -> Exception:
    """Return the router's error; a refusal, which does not name its key, with the key."""
    problem = translated(error)
    return RedisRefused(f"{what}: {problem}") if isinstance(problem, RedisRefused) else problem
