"""Parts of the command line that need no server."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from event_router.cli.check import written
from event_router.cli.connecting import moment
from event_router.cli.failures import Failed, WrongUsage, exit_code
from event_router.cli.output import printable
from event_router.cli.traffic import Traffic
from event_router.core.encoding import Encoder
from event_router.core.errors import ConfigurationError, InvalidEvent, RedisUnavailable
from event_router.core.registry import HandlerRegistry
from handlers.auth import AuthEventHandler
from handlers.chat import ChatEventHandler
from handlers.info import InfoEventHandler
from handlers.scan import ScanEventHandler


def test_the_demos_traffic_is_what_the_handlers_take_but_for_a_few_wrong_events() -> None:
    registry = HandlerRegistry()
    for handler in (AuthEventHandler(), ChatEventHandler(), ScanEventHandler(), InfoEventHandler()):
        registry.register(handler)
    encoder = Encoder(registry)
    refused, seen = 0, set()
    for domain, fields in islice(Traffic(random.Random(1), "run").events(), 20_000):
        seen.add((domain, fields["type"]))
        try:
            encoder.encode(domain, fields, now_ms=1)
        except InvalidEvent:
            refused += 1
    assert 0 < refused < 40
    assert {domain for domain, _ in seen} == set(registry.domains)
    assert len(seen) >= 9


def test_equal_dice_make_equal_traffic() -> None:
    one, two = (list(islice(Traffic(random.Random(3), "run").events(), 500)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é", "plain é"), ("\x1b[31m\n", "\\x1b[31m\\n"), ("\u202e", "\\u202e"), ("\udcff", "\\udcff")],
)
def test_what_producers_write_does_not_steer_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_exit_codes() -> None:
    assert [exit_code(kind("x")) for kind in (ConfigurationError, WrongUsage)] == [2, 2]
    assert [exit_code(kind("x")) for kind in (Failed, RedisUnavailable)] == [1, 1]


def test_times_given_as_options() -> None:
    assert moment(None, "--since") is None
    assert moment("1970-01-01T00:00:01Z", "--since") == 1000
    with pytest.raises(WrongUsage, match="--since"):
        moment("soon", "--since")


def test_values_are_written_as_in_the_environment() -> None:
    values = (("a", "b"), {"chat": 4, "scan": 2}, None, 5.0, True)
    assert [written(value) for value in values] == ["a,b", "chat=4,scan=2", "", "5.0", "True"]
