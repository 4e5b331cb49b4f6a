"""Log lines: parseable whatever arrives, and few enough to read."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from event_router.core.event import Entry
from event_router.ops.logs import LINES_A_SECOND, LogObserver, RateLimit, configure
from event_router.runtime.delivery import Delivery
from tests.unit.runtime_fakes import BIKES, Time, entry_id

HOSTILE = 'x\r\n{"level": "info"}\x1b[31m\x00\u2028\udc80\U0001f6b2"\\'


def delivery(stream: str = BIKES, label: str = "ridden") -> Delivery:
    found = Delivery(Entry(stream, entry_id(1), [], 3), "bikes", (stream, entry_id(1)))
    found.label = label
    return found


class Log:
    """A log set up in one form, and the lines it wrote."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], log_format: str = "json", level: str = "info"
    ) -> None:
        configure(level, log_format)
        self.time = Time()
        self.observer = LogObserver(self.time.clock, "consumer-a")
        self._capsys = capsys

    def text(self) -> list[str]:
        captured = self._capsys.readouterr()
        assert not captured.out
        return captured.err.split("\n")[:-1]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text()]


class TestLines:
    def test_a_failed_attempt_is_a_warning_with_all_about_it(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = Log(capsys)
        log.observer.failed(delivery(), "ConnectionError: no", 1.5)
        (line,) = log.lines()
        assert line.pop("timestamp").endswith("Z")
        assert line == {
            "event": "attempt_failed",
            "level": "warning",
            "stream": BIKES,
            "entry_id": entry_id(1),
            "event_type": "ridden",
            "consumer": "consumer-a",
            "attempt": 3,
            "reason": "ConnectionError: no",
            "retry_in_s": 1.5,
        }

    def test_a_dead_letter_is_an_error_with_its_reason(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys)
        log.observer.dead_lettered(delivery(), "poison", "it died")
        (line,) = log.lines()
        assert (line["level"], line["reason"], line["error"]) == ("error", "poison", "it died")

    def test_an_outage_is_two_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys)
        log.observer.outage_began("read", "away")
        log.observer.outage_ended(12.3456)
        began, ended = log.lines()
        assert (began["event"], ended["event"]) == ("redis_unavailable", "redis_available")
        assert ended["outage_s"] == 12.346

    def test_what_is_below_the_level_is_not_written(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys, level="info")
        log.observer.retained(BIKES, 5)
        assert not log.lines()
        log = Log(capsys, level="debug")
        log.observer.retained(BIKES, 5)
        assert len(log.lines()) == 1

    def test_every_other_report_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys)
        log.observer.claimed(BIKES, 3)
        log.observer.trimmed(BIKES, [f"{number}-0" for number in range(500)])
        log.observer.unread_trimmed(BIKES, 3)
        log.observer.breaker_opened("bikes", "no")
        log.observer.breaker_closed("bikes", 2.0)
        log.observer.group_created(BIKES, "0-0", 7, True)
        log.observer.consumers_removed(BIKES, ["consumer-b"])
        log.observer.refused("a commit", "no")
        log.observer.unknown_acknowledged(delivery(), "no handler")
        log.observer.stream_refused(BIKES, "no")
        log.observer.stream_accepted(BIKES)
        lines = log.lines()
        assert len(lines) == 11
        assert len(lines[1]["entry_ids"]) == 10


class TestHostileInput:
    def test_json_lines_stay_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys)
        log.observer.failed(delivery(label=HOSTILE), HOSTILE, None)
        log.observer.dead_lettered(delivery(), "invalid", HOSTILE)
        log.observer.refused(HOSTILE, HOSTILE)
        first, second, third = log.lines()
        assert first["reason"] == second["error"] == third["what"] == HOSTILE

    def test_console_lines_carry_no_control_characters(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys, "console")
        log.observer.failed(delivery(label=HOSTILE), HOSTILE, None)
        log.observer.dead_lettered(delivery(), "invalid", "\x1b[31mred\u2028")
        lines = log.text()
        assert len(lines) == 2
        assert all(line.isprintable() for line in lines)

    def test_lines_of_libraries_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("aiohttp").exception("went wrong: %s", HOSTILE)
        (line,) = log.lines()
        assert HOSTILE in line["event"]
        assert "ValueError" in line["exception"]

    @pytest.mark.parametrize("name", ["stream", "consumers"])
    def test_names_in_lists_are_harmless_on_a_terminal(
        self, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        log = Log(capsys, "console")
        log.observer.consumers_removed(HOSTILE if name == "stream" else BIKES, [HOSTILE])
        (line,) = log.text()
        assert line.isprintable()


class TestRateLimit:
    def test_so_many_a_second_and_then_a_count(self) -> None:
        time = Time(0.0)
        limit = RateLimit(time.clock, 3)
        assert [limit.passes() for _ in range(5)] == [0, 0, 0, None, None]
        time.pass_(0.5)
        assert limit.passes() is None
        time.pass_(0.5)
        assert [limit.passes() for _ in range(2)] == [3, 0]

    def test_a_storm_of_failures_is_a_few_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys)
        for _ in range(5):
            for _ in range(1_000):
                log.observer.failed(delivery(), "no", 1.0)
            log.time.pass_(1)
        lines = log.lines()
        assert len(lines) == 5 * LINES_A_SECOND
        assert sum(line.get("left_out", 0) for line in lines) == 4 * (1_000 - LINES_A_SECOND)

    def test_failures_do_not_hide_dead_letters(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = Log(capsys)
        for _ in range(100):
            log.observer.failed(delivery(), "no", 1.0)
        log.observer.dead_lettered(delivery(), "poison", "no")
        assert log.lines()[-1]["event"] == "dead_lettered"
