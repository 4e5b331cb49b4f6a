"""From the import strings in the settings to registered handlers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from event_router.core.errors import ConfigurationError
from event_router.core.handler import EventHandler
from event_router.core.registry import HandlerRegistry


class HandlerSettings(Protocol):
    """The settings that say which handlers there are."""

    @property
    def app_dir(self) -> Path:
        """The folder that is put on the import path."""

    @property
    def handlers(self) -> Sequence[str]:
        """Import strings, `module:Class`."""

    @property
    def domains(self) -> Sequence[str]:
        """The domains to serve; empty for those of the handlers."""


def load_handlers(settings: HandlerSettings) -> HandlerRegistry:
    """Import and register the handlers the settings name.

    Raises:
        ConfigurationError: a path cannot be imported, or what it names is no handler or contradicts
            another; names the setting.
    """
    folder = str(settings.app_dir.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    registry = HandlerRegistry()
    for path in settings.handlers:
        try:
            registry.register(_handler(path))
        except ConfigurationError as error:
            raise ConfigurationError(f"EVENT_ROUTER_HANDLERS: {error}") from None
    check_domains(settings.domains, registry)
    return registry


def check_domains(domains: Sequence[str], registry: HandlerRegistry) -> None:
    """Refuse a domain nobody handles, and a router without handlers.

    Raises:
        ConfigurationError: names the domain, or says that a handler is missing.
    """
    if not registry.domains:
        raise ConfigurationError(
            "no handler is registered: name one in EVENT_ROUTER_HANDLERS, or register it"
        )
    for domain in domains:
        if domain not in registry.domains:
            raise ConfigurationError(f"EVENT_ROUTER_DOMAINS: no handler takes the domain {domain!r}")


def _handler(path: str) -> EventHandler:
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{path}: there is no module {error.name!r} (looked in APP_DIR too)"
        ) from None
    except Exception as error:
        raise ConfigurationError(f"{path}: importing it failed: {type(error).__name__}: {error}") from None
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, EventHandler)):
        raise ConfigurationError(f"{path}: {module_name} has no EventHandler class {name!r}")
    try:
        return found()
    except Exception as error:
        raise ConfigurationError(f"{path}: creating it failed: {type(error).__name__}: {error}") from None
