"""Which handler takes which event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from event_router.core.errors import ConfigurationError
from event_router.core.handler import Call, EventHandler, Route, routes_of


class HandlerRegistry:
    """The registered handlers, by domain and event type."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, Route]] = {}
        self._routes: dict[str, dict[str, Route]] = {}

    def __repr__(self) -> str:
        return f"<HandlerRegistry {', '.join(f'{d}: {len(r)} types' for d, r in self._routes.items())}>"

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that have a handler, in the order of registration."""
        return tuple(self._routes)

    def register(self, handler: EventHandler) -> None:
        """Add a handler.

        Raises:
            ConfigurationError: it is malformed, or another handler takes the same domain and type.
        """
        for route in routes_of(handler):
            names = self._by_name.setdefault(route.domain, {})
            for name in route.names:
                if name in names:
                    raise ConfigurationError(
                        f"two handlers take {route.domain} {name!r}: "
                        f"{names[name].handler} and {route.handler}"
                    )
                names[name] = route
            self._routes.setdefault(route.domain, {})[route.type] = route

    def routes(self, domain: str) -> Mapping[str, Route]:
        """Return the routes of a domain by event type; empty for an unknown domain."""
        return self._routes.get(domain, {})

    def names(self, domain: str) -> Mapping[str, Route]:
        """Return the routes of a domain by every name a producer may write for the type."""
        return self._by_name.get(domain, {})

    def wrapped(self, wrap: Callable[[Route], Call]) -> HandlerRegistry:
        """Return a registry of the same routes that call what `wrap` makes of each."""
        copy = HandlerRegistry()
        for domain, routes in self._routes.items():
            copy._routes[domain] = {name: replace(route, call=wrap(route)) for name, route in routes.items()}
        for domain, names in self._by_name.items():
            copy._by_name[domain] = {name: copy._routes[domain][route.type] for name, route in names.items()}
        return copy
