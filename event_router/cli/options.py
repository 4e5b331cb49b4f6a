"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """The form of the data on standard output."""

    text = "text"
    json = "json"


Config = Annotated[Path | None, typer.Option("--config", "-c", help="A TOML file of settings.")]
StreamsUrl = Annotated[
    str | None, typer.Option("--streams-url", help="The Redis with the streams; wins over the environment.")
]
Form = Annotated[Output, typer.Option("--output", "-o", help="The form of the data on standard output.")]
Stream = Annotated[
    str | None, typer.Option("--stream", help="Only this stream, such as events:auth, or this domain's.")
]
