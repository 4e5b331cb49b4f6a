"""An independent fold: from the accepted entries to the state they must leave, however they were ordered.

Every fact is computed from the whole set of events at once, never step by step as the router does it. What
depends on the order of settling is only bounded:

- `login_streak` notifications: certain for a user whose final run of days is 7 or longer (the login that
  completed it saw it complete), possible for one who has such a run earlier in time (a later day may have
  come first), impossible for all others; never more than one for a user and day of such a run.
- of entries that repeat a producer's id one counts, whichever a router settled first. Its entry id is the
  last thing that orders articles and steps, so where all else is equal each event that one choice of
  entries makes the newest may stand there (`Expected.others`).
- `login_days` is compared as far as it is pinned: it exists. It keeps at most 32 runs of days; generated
  input stays below that (40 days hold at most 21 runs), so that the cap never shows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import count, product, takewhile

from tests.oracle.reading import Accepted, Event, Refused, read

STREAK = 7
TERMINAL = {"done", "completed", "complete", "failed", "error", "cancelled"}
STEP_FIELDS = ("stage", "status", "progress", "seq", "message", "result", "updated_at")
ARTICLE_FIELDS = ("title", "url", "source", "published_at")

Hashes = dict[str, dict[str, str]]
Possible = dict[str, list[dict[str, str]]]
"""By key, what may stand there: more than one only for what ``Expected.others`` tells of."""
Ordered = Sequence[tuple[tuple[int, int], Event]]
"""Events, each with the entry id that counted for it."""


@dataclass
class Expected:
    """The state after everything is settled."""

    hashes: Hashes = field(default_factory=dict)
    others: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """What may stand at a key instead of what ``hashes`` has for it."""
    dead: dict[tuple[str, str], str] = field(default_factory=dict)
    """(stream, entry id) to reason."""
    letters: dict[tuple[str, str], dict[bytes, bytes]] = field(default_factory=dict)
    """(stream, entry id) to the fields a dead letter must repeat."""
    notified: set[str] = field(default_factory=set)
    """Users who must have a login_streak notification."""
    notifiable: dict[str, int] = field(default_factory=dict)
    """How many login_streak notifications each user may have; 0 for those not named."""


def fold(entries: Iterable[Accepted]) -> Expected:
    """What the contract says of these entries together."""
    expected = Expected()
    events: list[Event] = []
    given: dict[tuple[str, str], Event] = {}
    for entry in entries:
        try:
            event = read(entry)
            first = (
                event if event.given_id is None else given.setdefault((event.stream, event.given_id), event)
            )
            if first is event:
                events.append(event)
            else:
                first.repeated.append(event.order)
        except Refused as refused:
            expected.dead[entry.stream, entry.id] = refused.reason
            expected.letters[entry.stream, entry.id] = dict(entry.fields)
    for hashes in (_users(events), _user_statistics(events), _days(events)):
        expected.hashes.update(hashes)
    for possible in (_jobs(events), _articles(events)):
        for key, (newest, *others) in possible.items():
            expected.hashes[key] = newest
            if others:
                expected.others[key] = others
    for user, days in _login_days(events).items():
        longest = [run for run in _runs(days) if len(run) >= STREAK]
        if longest:
            expected.notifiable[user] = sum(len(run) for run in longest)
        if streak(days) >= STREAK:
            expected.notified.add(user)
    return expected


def streak(days: set[date]) -> int:
    """The length of the run of days that ends at the newest."""
    newest = max(days)
    return sum(1 for _ in takewhile(days.__contains__, (newest - timedelta(n) for n in count())))


def _runs(days: set[date]) -> Iterator[list[date]]:
    for first in sorted(day for day in days if day - timedelta(1) not in days):
        yield list(takewhile(days.__contains__, (first + timedelta(n) for n in count())))


def _of(events: Iterable[Event], *types: str) -> Iterator[Event]:
    return (event for event in events if event.type in types)


def _login_days(events: Iterable[Event]) -> dict[str, set[date]]:
    days: defaultdict[str, set[date]] = defaultdict(set)
    for event in _of(events, "login"):
        days[str(event.data["user_id"])].add(date.fromisoformat(event.day))
    return days


def _users(events: list[Event]) -> Hashes:
    hashes: defaultdict[str, dict[str, str]] = defaultdict(dict)
    logins: defaultdict[str, list[Event]] = defaultdict(list)
    logouts: defaultdict[str, list[Event]] = defaultdict(list)
    for event in _of(events, "login"):
        logins[str(event.data["user_id"])].append(event)
    for event in _of(events, "logout"):
        logouts[str(event.data["user_id"])].append(event)
    for user, days in _login_days(events).items():
        hashes[f"state:user:{user}"] |= {
            "last_login": max(event.time for event in logins[user]),
            "login_count": str(len(logins[user])),
            "login_streak": str(streak(days)),
            "last_login_date": max(days).isoformat(),
        }
    for user, of_user in logouts.items():
        hashes[f"state:user:{user}"]["last_logout"] = max(event.time for event in of_user)
    return hashes


def _user_statistics(events: list[Event]) -> Hashes:
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    counted = {
        "message_sent": "messages_sent",
        "message_complete": "message_count",
        "feedback": "feedback_count",
        "scan_complete": "scan_count",
    }
    for event in _of(events, *counted):
        of_user = totals[f"stats:user:{event.data['user_id']}"]
        of_user[counted[event.type]] += 1
        if event.type == "feedback":
            of_user["feedback_score_total"] += int(event.data["score"])
    return {key: {name: str(value) for name, value in of_key.items()} for key, of_key in totals.items()}


def _days(events: list[Event]) -> Hashes:
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    counted = {
        "login": "logins",
        "message_sent": "messages_sent",
        "message_complete": "total_messages",
        "feedback": "feedback_count",
        "scan_complete": "total_scans",
    }
    for event in _of(events, *counted):
        totals[event.day][counted[event.type]] += 1
    for event in _of(events, "feedback"):
        totals[event.day]["feedback_score_total"] += int(event.data["score"])
    for day, _ in {(event.day, event.data["article_id"]) for event in _of(events, "article_fetched")}:
        totals[day]["articles_fetched"] += 1
    return {
        f"stats:daily:{day}": {name: str(value) for name, value in of_day.items()}
        for day, of_day in totals.items()
    }


def _jobs(events: list[Event]) -> Possible:
    of_jobs: defaultdict[str, list[Event]] = defaultdict(list)
    for event in _of(events, "progress", "message_complete", "scan_start", "scan_complete"):
        of_jobs[f"{event.domain}:state:{event.data['job_id']}"].append(event)
    return {job: _possible(of_job, _job) for job, of_job in of_jobs.items()}


def _job(ordered: Ordered) -> dict[str, str]:
    steps = []
    for order, event in ordered:
        step = dict.fromkeys(STEP_FIELDS, "") | {"seq": "0", "updated_at": event.time}
        if event.type == "scan_start":
            step |= {"stage": "start", "status": "running", "progress": "0"}
        elif event.type in ("scan_complete", "message_complete"):
            step |= {"stage": "complete", "status": "done", "progress": "100"}
        step |= {name: str(value) for name, value in event.data.items() if name in STEP_FIELDS}
        steps.append(((step["status"] in TERMINAL, int(step["seq"]), order), step))
    return max(steps, key=lambda ranked: ranked[0])[1]


def _articles(events: list[Event]) -> Possible:
    fetched: defaultdict[str, list[Event]] = defaultdict(list)
    for event in _of(events, "article_fetched"):
        fetched[f"state:article:{event.data['article_id']}"].append(event)
    return {key: _possible(of_article, _article) for key, of_article in fetched.items()}


def _article(ordered: Ordered) -> dict[str, str]:
    article = {}
    for name in ARTICLE_FIELDS:
        carrying = [(event.time_ms, order, event) for order, event in ordered if name in event.data]
        if carrying:
            article[name] = str(max(carrying, key=lambda known: known[:2])[2].data[name])
    return article


def _possible(events: list[Event], state: Callable[[Ordered], dict[str, str]]) -> list[dict[str, str]]:
    """What ``state`` may be, whichever entry of those that repeat an id is the one that counted."""
    found: list[dict[str, str]] = []
    for orders in product(*([event.order, *event.repeated] for event in events)):
        known = state(list(zip(orders, events, strict=True)))
        if known not in found:
            found.append(known)
    return found
