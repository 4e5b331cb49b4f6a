"""What the README shows: its blocks of code, by the file name in their first line, and its words."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The Python files that the README has its reader save, by name."""
    found = {}
    for language, text in _BLOCK.findall(README):
        name = re.match(r"# (\w+\.py)\n", text)
        if language == "python" and name:
            found[name[1]] = text
    return found


def commands() -> list[str]:
    """Every line of the shell blocks, without comments."""
    lines = (
        line for language, text in _BLOCK.findall(README) if language == "sh" for line in text.splitlines()
    )
    return [line.partition(" #")[0].strip() for line in lines if line and not line.startswith("#")]


def save_files(folder: Path) -> None:
    """Save the files in a folder, as the reader does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
