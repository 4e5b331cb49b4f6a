"""Cached values as bytes: JSON of one type, or `null` for what the source does not have."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from event_router.core.errors import ConfigurationError, StateError

T = TypeVar("T")

_NO_VALUE = (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError, RecursionError)


class CacheValues(Generic[T]):
    """Encodes and decodes values of one type.

    Args:
        type: a msgspec struct, or anything else that msgspec decodes from JSON.

    Raises:
        ConfigurationError: msgspec cannot decode the type.
    """

    def __init__(self, type: type[T]) -> None:
        self.type = type
        try:
            self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(type | None)
        except TypeError as error:
            raise ConfigurationError(f"values of {type!r} cannot be cached: {error}") from None

    def __repr__(self) -> str:
        return f"<CacheValues of {self.type!r}>"

    def encode(self, name: str, loaded: T | None) -> tuple[T | None, bytes]:
        """Return a value as the cache will give it, and its bytes.

        Raises:
            StateError: it is not of the type; says for which `name`.
        """
        try:
            raw = msgspec.json.encode(loaded)
            return self._decoder.decode(raw), raw
        except _NO_VALUE as error:
            raise StateError(f"{name}: what was loaded is no {self.type!r}: {error}") from error

    def decode(self, raw: bytes) -> T | None:
        """Return the value. Raises ValueError for bytes that are none of the type."""
        try:
            value: T | None = self._decoder.decode(raw)
        except _NO_VALUE as error:
            raise ValueError(str(error)) from None
        return value
