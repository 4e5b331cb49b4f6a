"""`docs/configuration.md`: every setting, from the model of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

GENERATED = "<!-- Written by `event-router docs`; change the source instead. -->"

_HEAD = f"""# Configuration

{GENERATED}

Every setting is an environment variable, or a line in a TOML file given by `--config` under the same name in
lower case and without the prefix. The command line wins over the environment, the environment over the file,
the file over the default. Lists are written with commas or as JSON. An unknown name that begins with
`EVENT_ROUTER_` is an error that names the nearest setting. An empty variable counts as unset.

```sh
EVENT_ROUTER_REDIS_STREAMS_URL=redis://localhost:6379/0 event-router check
```

`check` shows each setting with its value and where it comes from, URLs without their passwords.
[config/default.toml](../config/default.toml) has them all with their defaults. Beside these, `POD_NAME` names
the consumer where `EVENT_ROUTER_CONSUMER` is not set.

| variable | default | allowed | what it is |
|---|---|---|---|
"""


def settings_page() -> str:
    """Return the page."""
    from event_router.settings import Settings, variable

    schemas = Settings.model_json_schema()["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        allowed = _allowed(name, field, schemas[name])
        cells = (f"`{variable(name)}`", _default(default), allowed, str(field.description))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return _HEAD + "\n".join(rows) + "\n"


def _allowed(name: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    from event_router.core.catalogue import words

    if name.endswith("_url"):
        return "a Redis URL"
    if name.endswith("_template"):
        return "a name with placeholders"
    if schema.get("format") == "path":
        return "a path"
    return words(schema).replace("text", _checked((field.annotation, *field.metadata)) or "text")


def _checked(hints: Sequence[Any]) -> str:
    """Return what texts are checked to be, in words; empty where any text will do."""
    from pydantic import AfterValidator

    from event_router.settings_text import check_domain, check_import_string, check_name

    known: dict[object, str] = {
        check_name: "a name without blanks",
        check_domain: "domains",
        check_import_string: "`module:Class`",
    }
    for hint in hints:
        if isinstance(hint, AfterValidator):
            return known.get(hint.func, "")
        if found := _checked((*get_args(hint), *getattr(hint, "__metadata__", ()))):
            return found
    return ""


def _default(value: Any) -> str:
    if value is None or value in ((), {}):
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return " ".join(f"`{part}`" for part in value)
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"
