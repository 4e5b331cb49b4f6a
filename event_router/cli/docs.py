"""`event-router docs`: pages about the settings and the events, written from their source."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from event_router.cli.connecting import registry_of, settings_from
from event_router.cli.failures import Failed, WrongUsage
from event_router.cli.options import Config
from event_router.cli.output import note

STANDARD_OUTPUT = Path("-")


class Form(StrEnum):
    """What is written."""

    markdown = "markdown"
    asyncapi = "asyncapi"


def docs(
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where the files are; - writes to standard output.")
    ] = Path("docs"),
    form: Annotated[
        Form, typer.Option("--format", help="configuration.md and events.md, or asyncapi.json.")
    ] = Form.markdown,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 when a file differs.")
    ] = False,
    config: Config = None,
) -> None:
    """Write pages about every setting and every event of the handlers, or an AsyncAPI document."""
    if check and directory == STANDARD_OUTPUT:
        raise WrongUsage("--check compares files: name their --directory")
    pages = documents(form, config)
    if directory == STANDARD_OUTPUT:
        for text in pages.values():
            print(text, end="")
        return
    differing = [name for name, text in pages.items() if _read(directory / name) != text]
    if check:
        if differing:
            raise Failed(
                f"{', '.join(str(directory / name) for name in differing)}: not what the source says; run"
                f" `event-router docs --format {form.value}`"
            )
        return
    for name in differing:
        _write(directory / name, pages[name])
    note(f"written: {', '.join(differing)}" if differing else "nothing has changed")


def documents(form: Form, config: Path | None = None) -> dict[str, str]:
    """Return the files of a form by name, for the settings and their handlers."""
    from event_router.cli.asyncapi import asyncapi_document
    from event_router.cli.events_page import events_page
    from event_router.cli.settings_page import settings_page
    from event_router.core.catalogue import Catalogue

    settings = settings_from(config)
    catalogue = Catalogue.of(registry_of(settings))
    if form is Form.asyncapi:
        document = asyncapi_document(catalogue, settings.key_names)
        return {"asyncapi.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"}
    return {"configuration.md": settings_page(), "events.md": events_page(catalogue, settings)}


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        return None


def _write(file: Path, text: str) -> None:
    """Put a whole file in the place of another: a reader sees the old or the new one."""
    written = file.with_name(f".{file.name}.new")
    try:
        written.write_text(text, encoding="utf-8")
        written.replace(file)
    except OSError as error:
        written.unlink(missing_ok=True)
        raise Failed(f"{file} cannot be written: {error.strerror}") from None
