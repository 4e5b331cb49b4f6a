"""Generated input that can break things: seeded, of four domains, out of order, with bad entries among it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import redis

from tests.oracle.bad_entries import planted
from tests.oracle.reading import Accepted
from tests.oracle.writing import Happening, write

DAY_MS = 86_400_000
SPAN_DAYS = 40
SHUFFLE_DAYS = 3
HOT_USER = "hot"
DUPLICATED = 0.03
BAD = 0.01

TERMINAL_STATUSES = ("done", "completed", "complete", "failed", "error", "cancelled")


@dataclass(frozen=True)
class Planned:
    """An entry to publish; ``reason`` is why it must end as a dead letter, None if it counts."""

    stream: str
    fields: dict[bytes, bytes]
    reason: str | None = None


@dataclass
class Workload:
    """``count`` entries ending about ``now_ms``; the same seed gives the same entries."""

    seed: int
    count: int
    now_ms: int
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def entries(self) -> list[Planned]:
        """All of them in the order of publishing."""
        bad = [
            Planned(stream, fields, reason) for stream, fields, reason in planted(self._random, self.now_ms)
        ]
        bad *= max(1, int(self.count * BAD) // len(bad))
        happenings = self._happenings(self.count - len(bad))
        happenings.sort(
            key=lambda happening: happening.time_ms + self._random.uniform(0, SHUFFLE_DAYS * DAY_MS)
        )
        entries = [Planned(*write(happening, self._random)) for happening in happenings]
        for source in self._random.choices(range(len(entries)), k=int(len(entries) * DUPLICATED)):
            # The same bytes again somewhat later, in place of what stood there, so that the count stays.
            entries[min(len(entries) - 1, source + self._random.randint(1, 500))] = entries[source]
        for entry in bad:
            entries.insert(self._random.randint(0, len(entries)), entry)
        return entries

    def _happenings(self, count: int) -> list[Happening]:
        hot = [self._login(HOT_USER, self._moment()) for _ in range(count // 20)]
        streaks = [self._streak(f"streak-{user}") for user in range(max(8, count // 200))]
        happenings = hot + [login for logins in streaks for login in logins]
        sources = (self._sign_in, self._chat, self._job, self._article)
        while len(happenings) < count:
            happenings += self._random.choices(sources, weights=(30, 20, 10, 20))[0]()
        return happenings[:count]

    def _moment(self) -> int:
        """Some time in the span: often a whole minute (ties), sometimes just before or at midnight."""
        moment = self.now_ms - self._random.randint(0, SPAN_DAYS * DAY_MS)
        match self._random.randrange(10):
            case 0 | 1 | 2:
                return moment - moment % 60_000
            case 3:
                return moment - moment % DAY_MS - self._random.randint(0, 1)
            case _:
                return moment

    def _user(self) -> str:
        """A few hundred users, some active and most not; among them numbers and names beyond ASCII."""
        number = int(self._random.paretovariate(0.6)) % max(50, self.count // 40)
        return self._random.choice((f"{number}", f"user-{number}", f"Zoë {number}", f"利用者{number}"))

    def _login(self, user: str, time_ms: int) -> Happening:
        return Happening("auth", "login", time_ms, {"user_id": user, "ip": "10.0.0.1", "device": "phone"})

    def _sign_in(self) -> list[Happening]:
        user, moment = self._user(), self._moment()
        if self._random.random() < 0.2:
            return [Happening("auth", "logout", moment, {"user_id": user})]
        return [self._login(user, moment)]

    def _streak(self, user: str) -> list[Happening]:
        """Daily logins over 5 to 12 days, sometimes with one day missing, and sometimes a stray later day."""
        newest = self.now_ms - self._random.randint(0, (SPAN_DAYS - 15) * DAY_MS)
        days = list(range(self._random.randint(5, 12)))
        if self._random.random() < 0.3:
            days.remove(self._random.choice(days))
        if self._random.random() < 0.3:
            days.append(-2)
        times = self._random.choices(days, k=3) + days
        moments = [newest - day * DAY_MS + self._random.randint(0, 3_600_000) for day in times]
        return [self._login(user, min(moment, self.now_ms)) for moment in moments]

    def _chat(self) -> list[Happening]:
        user, moment = self._user(), self._moment()
        job = {"job_id": f"m{self._random.getrandbits(40):x}"}
        kind = self._random.randrange(4)
        if kind == 0:
            score: dict[str, str | int] = {"score": self._random.randint(1, 5), "comment": "ok"}
            return [Happening("chat", "feedback", moment, {"user_id": user} | score)]
        if kind == 1:
            return [Happening("chat", "message_complete", moment, {"user_id": user} | job)]
        return [Happening("chat", "message_sent", moment, {"user_id": user, "message_id": job["job_id"]})]

    def _job(self) -> list[Happening]:
        """A job's steps: repeated seq, ties in time, no, one or two ends, sometimes a step after the end."""
        domain = self._random.choice(("scan", "chat"))
        job, user, moment = f"j{self._random.getrandbits(40):x}", self._user(), self._moment()
        mine: dict[str, str | int] = {"job_id": job, "user_id": user}
        steps: list[Happening] = []
        if domain == "scan":
            steps.append(Happening("scan", "scan_start", moment, mine))
        for seq in self._sequence():
            moment += self._random.choice((0, 250, 60_000))
            steps.append(Happening(domain, "progress", moment, mine | self._step(seq, "running")))
        for _ in range(self._random.choice((0, 1, 1, 2))):
            moment += self._random.choice((0, 1000))
            steps.append(self._end(domain, mine, moment))
        return steps

    def _sequence(self) -> Iterator[int]:
        for seq in range(1, self._random.randint(2, 7)):
            yield from [seq] * self._random.choice((1, 1, 1, 2))

    def _step(self, seq: int, status: str) -> dict[str, str | int]:
        stage = f"stage {self._random.randrange(1000)}"
        step: dict[str, str | int] = {"seq": seq, "status": status, "stage": stage}
        more: dict[str, str | int] = {
            "progress": self._random.randint(0, 100),
            "message": "näher",
            "result": '{"n": 1}',
        }
        return step | {name: value for name, value in more.items() if self._random.random() < 0.5}

    def _end(self, domain: str, mine: dict[str, str | int], moment: int) -> Happening:
        if self._random.random() < 0.5:
            step = self._step(self._random.randint(0, 9), self._random.choice(TERMINAL_STATUSES))
            return Happening(domain, "progress", moment, mine | step)
        if domain == "chat":
            return Happening("chat", "message_complete", moment, mine)
        return Happening(
            "scan", "scan_complete", moment, mine | {"result": f"found {self._random.randrange(9)}"}
        )

    def _article(self) -> list[Happening]:
        """One article fetched up to five times, often at the same moment with another title."""
        article, moment = f"article-{self._random.randrange(max(20, self.count // 60))}", self._moment()
        return [
            Happening(
                "info",
                "article_fetched",
                moment + self._random.choice((0, 0, 1, DAY_MS)),
                self._page(article),
            )
            for _ in range(self._random.randint(1, 5))
        ]

    def _page(self, article: str) -> dict[str, str | int]:
        version = self._random.randrange(10_000)
        return {
            "article_id": article,
            "title": f"Tïtle {version}",
            "url": f"https://example.org/{version}",
            "source": f"source {version % 7}",
            "published_at": f"2026-01-{version % 28 + 1:02d}T00:00:00.000Z",
        }


def publish(client: redis.Redis, entries: Sequence[Planned], *, at_once: int = 100) -> list[Accepted]:
    """XADD the entries in order, ``at_once`` to a round trip; what the server took, with the ids it gave."""
    accepted: list[Accepted] = []
    for start in range(0, len(entries), at_once):
        chunk = entries[start : start + at_once]
        pipeline = client.pipeline(transaction=False)
        for entry in chunk:
            pipeline.xadd(entry.stream, dict(entry.fields))  # type: ignore[arg-type]
        for entry, answer in zip(chunk, pipeline.execute(), strict=True):
            entry_id = answer.decode() if isinstance(answer, bytes) else answer
            accepted.append(Accepted(entry.stream, entry_id, entry.fields))
    return accepted
