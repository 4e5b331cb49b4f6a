"""Writing data: JSON lines for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: object) -> None:
    """Write one value as one line of JSON."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 0) -> None:
    """Write rows below their columns; the last `numbers` columns are aligned to the right."""
    from rich.console import Console

    made = table(columns, rows, numbers=numbers)
    # A pipe has no width: let nothing be cut there.
    Console(width=None if sys.stdout.isatty() else 100_000, highlight=False).print(made)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 0) -> Any:
    """Return a rich table of the rows."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        number = position >= len(columns) - numbers
        made.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    return made


def note(message: str) -> None:
    """Write one line beside the data, on standard error."""
    print(printable(message), file=sys.stderr)


def printable(text: str) -> str:
    """Return the text with control characters as escapes: what producers write must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )
