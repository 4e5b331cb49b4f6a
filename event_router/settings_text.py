"""How the values of settings are written as text: lists, pairs and templates."""

from __future__ import annotations

import json
import re
import string
from typing import Any


def parse_list(text: str) -> list[Any]:
    """Read a list written with commas or as JSON; raises ValueError."""
    if text.lstrip().startswith("["):
        return list(_json(text, list))
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_pairs(text: str) -> dict[str, Any]:
    """Read a mapping written `a=1,b=2` or as JSON; raises ValueError."""
    if text.lstrip().startswith("{"):
        return dict(_json(text, dict))
    pairs: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name in pairs:
            raise ValueError(f"{part!r} is {'repeated' if equals else 'no pair'}; write chat=4,scan=4")
        pairs[name] = value
    return pairs


def check_name(text: str) -> str:
    """Return a name for Redis or the network: 1 to 512 bytes, no blanks or control characters."""
    if not 1 <= len(text.encode()) <= 512 or not text.isprintable() or " " in text:
        raise ValueError("a name has 1 to 512 bytes and neither blanks nor control characters")
    return text


def check_domain(text: str) -> str:
    """Return the name of a domain, which becomes a part of key names."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError("a domain has 1 to 64 letters, digits, dots, dashes and underscores")
    return text


def check_import_string(text: str) -> str:
    """Return the path of a class, such as `handlers.auth:AuthEventHandler`."""
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError("a handler is named module:Class, such as handlers.auth:AuthEventHandler")
    return text


def check_template(template: str, *, required: set[str], optional: set[str]) -> str:
    """Return the template if its placeholders are right; raises ValueError."""
    found = _placeholders(template)
    allowed = " and ".join(f"{{{name}}}" for name in sorted(required | optional))
    if not found <= required | optional:
        wrong = ", ".join(sorted(f"{{{name}}}" for name in found - required - optional))
        raise ValueError(f"the placeholder {wrong} is unknown; use {allowed}")
    if not required <= found:
        raise ValueError(f"it lacks {', '.join(f'{{{name}}}' for name in sorted(required - found))}")
    if not template.isprintable() or set(template) & set(" *?[]\\"):
        raise ValueError("spaces, control characters and * ? [ ] \\ cannot be part of it")
    return template


def _placeholders(template: str) -> set[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        raise ValueError("its braces do not match") from None
    if any(spec or conversion or set(literal) & set("{}") for literal, _, spec, conversion in parts):
        raise ValueError("a placeholder is a name in braces and nothing else")
    return {name for _, name, _, _ in parts if name is not None}


def _json(text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(value, kind):
        raise ValueError(f"it is no JSON {'list' if kind is list else 'object'}")
    return value


def one_line(problem: object) -> str:
    """Return the text with every run of white space as one blank."""
    return " ".join(str(problem).split())
