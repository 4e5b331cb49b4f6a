"""Articles that were fetched."""

from __future__ import annotations

from itertools import permutations

from event_router.testing import Published, apply, event
from handlers.info import InfoEventHandler

ARTICLE = "state:article:a"


def fetched(timestamp: str, article_id: str = "a", **fields: str) -> Published:
    return event("info", "article_fetched", article_id=article_id, timestamp=timestamp, **fields)


def test_what_is_known_of_an_article() -> None:
    state = apply(
        InfoEventHandler(),
        [fetched("2026-11-03T10:00:00Z", title="Tïtle", url="u", source="s", published_at="last week")],
    )
    article = {name: value for name, value in state[ARTICLE].items() if not name.endswith(":version")}
    assert article == {
        "title": "Tïtle",
        "url": "u",
        "source": "s",
        "published_at": "last week",
        "fetched_at": "2026-11-03T10:00:00.000Z",
    }
    assert state["stats:daily:2026-11-03"] == {"articles_fetched": "1"}


def test_each_field_is_the_latest_that_has_it() -> None:
    events = [
        fetched("2026-11-03T10:00:00Z", title="first", url="first"),
        fetched("2026-11-03T11:00:00Z", title="second"),
        fetched("2026-11-03T12:00:00Z", source="third"),
    ]
    for order in permutations(events):
        article = apply(InfoEventHandler(), order)[ARTICLE]
        assert (article["title"], article["url"], article["source"]) == ("second", "first", "third")
        assert article["fetched_at"] == "2026-11-03T12:00:00.000Z"


def test_at_one_moment_the_later_entry_wins() -> None:
    sent = [
        event(
            "info",
            "article_fetched",
            entry_id=entry_id,
            article_id="a",
            title=entry_id,
            timestamp="2026-11-03",
        )
        for entry_id in ("1800000000000-9", "1800000000000-10")
    ]
    for order in permutations(sent):
        assert apply(InfoEventHandler(), order)[ARTICLE]["title"] == "1800000000000-10"


def test_an_article_counts_once_a_day() -> None:
    state = apply(
        InfoEventHandler(),
        [
            fetched("2026-11-03T00:00:00Z"),
            fetched("2026-11-03T23:59:59Z"),
            fetched("2026-11-04T00:00:00Z"),
            fetched("2026-11-03T12:00:00Z", article_id="b"),
        ],
    )
    assert state["stats:daily:2026-11-03"] == {"articles_fetched": "2"}
    assert state["stats:daily:2026-11-04"] == {"articles_fetched": "1"}


def test_without_an_article_it_is_invalid() -> None:
    (letter,) = apply(InfoEventHandler(), [event("info", "article_fetched", title="t")]).dead_letters
    assert (letter.reason, letter.error) == ("invalid", "field 'article_id' is missing")
