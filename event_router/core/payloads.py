"""From an entry's names and values to a handler's typed payload, checked field by field."""

from __future__ import annotations

import math
import types
import typing
import unicodedata
from typing import Any

import msgspec

from event_router.core.errors import ConfigurationError, InvalidEvent
from event_router.core.event import IDENTIFIER, JSON, Kind
from event_router.core.timestamps import shortened

IDENTIFIER_BYTES = 512
TEXT_BYTES = 65_536


def check_identifier(name: str, value: object) -> str:
    """Return the identifier as text.

    Raises:
        InvalidEvent: it is empty, too long, no text, or holds control characters; names the field.
    """
    if type(value) is int:
        value = str(value)
    if type(value) is not str:
        raise InvalidEvent(f"field {name!r} must be an identifier, not {type(value).__name__}")
    if value.isascii() and value.isprintable() and 0 < len(value) <= IDENTIFIER_BYTES:
        return value
    if not value:
        raise InvalidEvent(f"field {name!r} is an empty identifier")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidEvent(f"field {name!r} is not UTF-8") from None
    if size > IDENTIFIER_BYTES:
        raise InvalidEvent(f"field {name!r} is an identifier of {size} bytes; at most {IDENTIFIER_BYTES}")
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise InvalidEvent(f"field {name!r} has control characters: {shortened(value)}")
    return value


def check_text(name: str, value: object) -> object:
    """Return a text field's value: integers of JSON become decimals, size is checked.

    Raises:
        InvalidEvent: longer than 64 kB or not UTF-8; names the field.
    """
    if type(value) is int:
        return str(value)
    if type(value) is str and (len(value) * 4 > TEXT_BYTES or not value.isascii()):
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidEvent(f"field {name!r} is not UTF-8") from None
        if size > TEXT_BYTES:
            raise InvalidEvent(f"field {name!r} is a text of {size} bytes; at most {TEXT_BYTES}")
    return value


def _check_json(name: str, value: object) -> object:
    if value is None or type(value) is str:
        return check_text(name, value)
    return check_text(name, msgspec.json.encode(value).decode())


def _check_number(name: str, value: object) -> object:
    # msgspec's bounds let NaN pass, and Python's integers have no end.
    if type(value) is float and not math.isfinite(value):
        raise InvalidEvent(f"field {name!r} is not a finite number")
    if type(value) is str and not value:
        raise InvalidEvent(f"field {name!r} is empty")
    if type(value) is str and value.strip("+-").lower() in ("nan", "inf", "infinity"):
        raise InvalidEvent(f"field {name!r} is not a finite number")
    if type(value) is str and len(value) > 400:
        raise InvalidEvent(f"field {name!r} is a number of {len(value)} characters")
    return value


class PayloadType:
    """How one payload struct is read: which fields it has and how the text of each is checked.

    Raises:
        ConfigurationError: the type is not a msgspec struct.
    """

    __slots__ = ("_checks", "key_fields", "struct")

    def __init__(self, struct: Any) -> None:
        if not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
            raise ConfigurationError(f"payload type {struct!r} must be a msgspec.Struct")
        self.struct: type[msgspec.Struct] = struct
        self._checks: list[tuple[bytes, str, Any]] = []
        hints = typing.get_type_hints(struct, include_extras=True)
        identifiers = []
        for field in msgspec.structs.fields(struct):
            kind, plain = kind_of(hints[field.name])
            if kind is IDENTIFIER:
                check: Any = check_identifier
                identifiers.append(field.name)
            elif kind is JSON:
                check = _check_json
            else:
                check = check_text if plain is str else _check_number if plain in (int, float) else None
            self._checks.append((field.encode_name.encode(), field.encode_name, check))
        self.key_fields = tuple(sorted(identifiers, key=lambda name: name != "job_id"))

    def convert(self, values: dict[bytes, bytes], extra: dict[str, Any] | None) -> Any:
        """Return the payload of an entry.

        Args:
            values: the entry's flat fields; these win.
            extra: members of the entry's `data` object, if it has one.

        Raises:
            InvalidEvent: a field is missing or mistyped; the message names it.
        """
        found: dict[str, Any] = {}
        for raw_name, name, check in self._checks:
            raw = values.get(raw_name)
            value: Any
            if raw is not None:
                try:
                    value = raw.decode()
                except UnicodeDecodeError:
                    raise InvalidEvent(f"field {name!r} is not UTF-8") from None
            elif extra is not None and (value := extra.get(name)) is not None:
                pass
            else:
                continue
            found[name] = check(name, value) if check is not None else value
        try:
            return msgspec.convert(found, self.struct, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidEvent(_described(error)) from None

    def key(self, data: Any) -> str:
        """Return the ordering key: `job_id` if the payload has one, else its first identifier."""
        for name in self.key_fields:
            value = getattr(data, name, None)
            if value is not None:
                return str(value)
        return ""


def _described(error: msgspec.ValidationError) -> str:
    text = str(error)
    if "missing required field" in text:
        return f"field {text.partition('`')[2].rstrip('`').partition('`')[0]!r} is missing"
    problem, _, path = text.partition(" - at `$.")
    return f"field {path.rstrip('`')!r}: {problem[:1].lower()}{problem[1:]}" if path else text


def kind_of(hint: Any) -> tuple[Kind | None, type | None]:
    """Return the `Kind` in an annotation and its plain type, looking through unions and None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind_of(part) for part in typing.get_args(hint) if part is not type(None)]
        for kind, plain in kinds:
            if kind is not None:
                return kind, plain
        return kinds[0] if kinds else (None, None)
    if typing.get_origin(hint) is typing.Annotated:
        plain = typing.get_args(hint)[0]
        for note in hint.__metadata__:
            if isinstance(note, Kind):
                return note, str
        return kind_of(plain)
    return None, hint if isinstance(hint, type) else None
