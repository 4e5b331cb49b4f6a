"""Synthetic events of the four domains, for the demo."""

from __future__ import annotations

import random
from collections.abc import Iterator

Fields = dict[str, str]

USERS = 2_000
ARTICLES = 5_000
BAD_ONE_IN = 2_000
STAGES = ("queued", "reading", "thinking", "writing")


class Traffic:
    """Makes events as producers would, a few of them wrong.

    `dice` decides everything, so that equal dice make equal traffic.
    """

    def __init__(self, dice: random.Random, run: str) -> None:
        self._dice = dice
        self._run = run
        self._jobs = 0

    def events(self) -> Iterator[tuple[str, Fields]]:
        """Yield (domain, fields) for ever."""
        while True:
            user = f"user-{min(int(self._dice.paretovariate(0.6)), USERS)}"
            kind = self._dice.random()
            if self._dice.randrange(BAD_ONE_IN) == 0:
                yield "auth", {"type": "login", "device": "forgot the user_id"}
            elif kind < 0.3:
                yield "auth", {"type": "login", "user_id": user, "ip": "192.0.2.7"}
            elif kind < 0.4:
                yield "auth", {"type": "logout", "user_id": user}
            elif kind < 0.65:
                yield "chat", {"type": "message_sent", "user_id": user}
            elif kind < 0.7:
                yield "chat", {"type": "feedback", "user_id": user, "score": str(self._dice.randint(1, 5))}
            elif kind < 0.75:
                yield from self._chat_job(user)
            elif kind < 0.8:
                yield from self._scan_job(user)
            else:
                article = self._dice.randrange(ARTICLES)
                yield (
                    "info",
                    {
                        "type": "article_fetched",
                        "article_id": f"article-{article}",
                        "title": f"Article {article}",
                    },
                )

    def _job(self) -> str:
        self._jobs += 1
        return f"{self._run}-{self._jobs}"

    def _chat_job(self, user: str) -> Iterator[tuple[str, Fields]]:
        job = self._job()
        for seq, stage in enumerate(STAGES, start=1):
            yield "chat", _step(job, stage, seq, 25 * (seq - 1))
        yield "chat", {"type": "message_complete", "user_id": user, "job_id": job}

    def _scan_job(self, user: str) -> Iterator[tuple[str, Fields]]:
        job = self._job()
        yield "scan", {"type": "scan_start", "user_id": user, "job_id": job}
        yield "scan", _step(job, "scanning", 1, 50)
        yield "scan", {"type": "scan_complete", "user_id": user, "job_id": job, "result": "clean"}


def _step(job: str, stage: str, seq: int, progress: int) -> Fields:
    return {
        "type": "progress",
        "job_id": job,
        "stage": stage,
        "status": "running",
        "seq": str(seq),
        "progress": str(progress),
    }
