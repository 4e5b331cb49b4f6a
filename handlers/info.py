"""Articles that were fetched: `events:info`."""

from __future__ import annotations

import msgspec

from event_router import Event, EventHandler, Identifier, StateTransaction, Text, on


class ArticleFetched(msgspec.Struct):
    """An article was fetched; what is absent leaves what is known."""

    article_id: Identifier
    title: Text | None = None
    url: Text | None = None
    source: Text | None = None
    published_at: Text | None = None


class InfoEventHandler(EventHandler):
    """Keeps the latest of each article and counts the articles of a day."""

    domain = "info"

    @on("article_fetched")
    async def article_fetched(self, event: Event[ArticleFetched], state: StateTransaction) -> None:
        """Keep what the event knows of the article; count it once a day."""
        fetched, day = event.data, event.day
        known = {
            "title": fetched.title,
            "url": fetched.url,
            "source": fetched.source,
            "published_at": fetched.published_at,
            "fetched_at": event.timestamp,
        }
        article = state.entity("article", fetched.article_id)
        article.set_latest(**{name: value for name, value in known.items() if value is not None})
        first_today = state.once(f"article:{fetched.article_id}:{day}")
        first_today.statistics("daily", day).increment("articles_fetched")
