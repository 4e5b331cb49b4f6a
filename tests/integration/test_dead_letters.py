"""Dead letters on a real server: given back exactly once, byte for byte, or left where they are."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio

from event_router.core.errors import EventRouterError, RedisRefused, RedisUnavailable
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import open_client
from event_router.redis_io.dead_letter_format import unpack
from event_router.redis_io.dead_letters import Choice, DeadLetters, Replayed
from tests.environment.servers import Server

STREAM = "events:auth"
DLQ = "dlq:events:auth"
ORIGIN = "1767225600123-4"
Fields = list[tuple[bytes, bytes]]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    made = open_client(parse_url(server.url), timeout_s=10)
    yield made
    await made.aclose(close_connection_pool=True)


@pytest.fixture
def dead_letters(client: redis.asyncio.Redis) -> DeadLetters:
    return DeadLetters(client)


def own_fields(origin_id: str = ORIGIN, reason: str = "invalid", stream: str = STREAM) -> Fields:
    return [
        (b"dlq_stream", stream.encode()),
        (b"dlq_id", origin_id.encode()),
        (b"dlq_reason", reason.encode()),
        (b"dlq_error", b"field 'user_id' is missing"),
        (b"dlq_deliveries", b"3"),
        (b"dlq_consumer", b"consumer-a"),
        (b"dlq_time", b"2026-01-01T00:00:01.000Z"),
    ]


def add(client: redis.Redis, key: str, fields: Fields, id_: str = "*") -> str:
    """XADD with the fields in their order and with repetitions."""
    parts = [part for pair in fields for part in pair]
    added: bytes = client.execute_command("XADD", key, id_, *parts)  # type: ignore[no-untyped-call]
    return added.decode()


def entries(client: redis.Redis, key: str) -> list[Fields]:
    """All entries' fields in their order and with repetitions (redis-py's own dict would lose these)."""
    read = """
        local entries = {}
        for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do table.insert(entries, entry[2]) end
        return entries
    """
    flat: Any = client.eval(read, 1, key)
    return [list(zip(entry[::2], entry[1::2], strict=True)) for entry in flat]


async def replay(dead_letters: DeadLetters, choice: Choice | None = None, **options: Any) -> list[Replayed]:
    return [done async for done in dead_letters.replay(DLQ, choice, **options)]


async def test_a_replayed_letter_is_the_original_entry_and_its_time(
    redis_bytes: redis.Redis, dead_letters: DeadLetters
) -> None:
    original = [(b"type", b"login"), (b"user_id", b"\xff\x00\r\n"), (b"type", b"again"), (b"", b"")]
    add(redis_bytes, DLQ, original + own_fields())
    [done] = await replay(dead_letters)
    assert done.outcome == "replayed"
    assert entries(redis_bytes, STREAM) == [[*original, (b"timestamp", b"1767225600123")]]
    assert redis_bytes.xlen(DLQ) == 0
    assert redis_bytes.xinfo_stream(STREAM)["last-generated-id"].decode() == done.entry_id


@pytest.mark.parametrize(
    ("fields", "added"),
    [
        ([(b"timestamp", b"2026-01-01T00:00:00Z")], False),
        ([(b"timestamp", b"")], False),
        ([(b"data", b'{"timestamp": 5}')], False),
        ([(b"data", b'{"timestamp": null}')], True),
        ([(b"data", b'{"user_id": "1"}')], True),
        ([(b"data", b"[" * 100_000)], True),
        ([(b"data", b"\xff")], True),
        ([(b"data", b'["timestamp"]')], True),
    ],
)
async def test_a_timestamp_is_added_only_where_there_is_none(
    redis_bytes: redis.Redis, dead_letters: DeadLetters, fields: Fields, added: bool
) -> None:
    add(redis_bytes, DLQ, fields + own_fields())
    await replay(dead_letters)
    [entry] = entries(redis_bytes, STREAM)
    assert entry == fields + ([(b"timestamp", b"1767225600123")] if added else [])


async def test_an_entry_with_dlq_fields_of_its_own_stays_whole(
    redis_bytes: redis.Redis, dead_letters: DeadLetters
) -> None:
    original = [*own_fields(reason="poison"), (b"type", b"login"), (b"timestamp", b"1")]
    add(redis_bytes, DLQ, original + own_fields())
    [letter] = [letter async for letter in dead_letters.letters(DLQ)]
    assert letter.reason == "invalid"
    await replay(dead_letters)
    assert entries(redis_bytes, STREAM) == [original]


async def test_a_letter_that_comes_back_meanwhile_is_not_replayed_again(
    redis_bytes: redis.Redis, dead_letters: DeadLetters
) -> None:
    for n in range(30):
        add(redis_bytes, DLQ, [(b"n", b"%d" % n), *own_fields()])
    done = []
    async for replayed in dead_letters.replay(DLQ):
        done.append(replayed)
        add(redis_bytes, DLQ, [(b"again", b"1"), *own_fields()])
    assert len(done) == 30
    assert redis_bytes.xlen(STREAM) == 30
    assert redis_bytes.xlen(DLQ) == 30


def packed(fields: Fields) -> bytes:
    """A msgpack array as Redis's cmsgpack writes it: `str` of any bytes."""
    flat = [part for pair in fields for part in pair]
    out = bytearray(b"\xdd" + len(flat).to_bytes(4))
    for part in flat:
        if len(part) < 32:
            out.append(0xA0 | len(part))
        elif len(part) < 256:
            out += bytes((0xD9, len(part)))
        elif len(part) < 65536:
            out += b"\xda" + len(part).to_bytes(2)
        else:
            out += b"\xdb" + len(part).to_bytes(4)
        out += part
    return bytes(out)


def many_fields() -> Fields:
    fields = [(b"f%d" % n, b"\xfe%d" % n) for n in range(4500)]
    return [*fields, (b"long", b"x" * 40), (b"longer", b"y" * 300), (b"longest", b"\xff" * 70_000)]


async def test_a_letter_of_very_many_fields(redis_bytes: redis.Redis, dead_letters: DeadLetters) -> None:
    original = many_fields()
    add(redis_bytes, DLQ, [(b"dlq_raw", packed(original)), *own_fields(reason="too_large")])
    [done] = await replay(dead_letters)
    assert done.outcome == "replayed"
    found: Any = redis_bytes.xrange(STREAM)
    ((entry_id, fields),) = found
    assert entry_id.decode() == done.entry_id
    assert list(fields.items()) == [*original, (b"timestamp", b"1767225600123")]
    assert redis_bytes.xlen(DLQ) == 0
    assert redis_bytes.keys("event-router:*") == []


def test_unpack_reads_what_redis_packs(redis_bytes: redis.Redis) -> None:
    parts = [
        b"",
        b"a",
        b"\xff" * 31,
        b"b" * 32,
        b"c" * 255,
        b"d" * 256,
        b"e" * 65_535,
        b"f" * 65_536,
        b"\x00",
    ]
    for count in (1, len(parts), 15, 16, 3000):
        strings = (parts * count)[:count]
        answer: Any = redis_bytes.eval("return cmsgpack.pack(ARGV)", 0, *strings)
        assert unpack(answer) == strings


@pytest.mark.parametrize(
    "broken",
    [b"", b"\x92\xa1a", b"\x91\xa2a", b"\x91\xa1ab", b"\x91\x01", b"x", b"\xdd\xff\xff\xff\xff", b"\x91\xdb"],
)
def test_unpack_of_what_is_no_array_of_strings(broken: bytes) -> None:
    assert unpack(broken) is None


def test_unpack_agrees_with_msgspec() -> None:
    strings = [b"a", b"b" * 70_000, b""]
    assert unpack(msgspec.msgpack.encode(strings)) == strings


@pytest.mark.parametrize("raw", [False, True], ids=["script", "transaction"])
async def test_two_replays_at_once_give_each_letter_back_once(
    redis_bytes: redis.Redis, client: redis.asyncio.Redis, raw: bool
) -> None:
    count = 5 if raw else 100
    for n in range(count):
        number = (b"n", b"%d" % n)
        original = [number, *many_fields()[:4000]] if raw else [number]
        add(redis_bytes, DLQ, ([(b"dlq_raw", packed(original))] if raw else original) + own_fields())
    results = await asyncio.gather(*(replay(DeadLetters(client)) for _ in range(4)))
    assert sum(done.outcome == "replayed" for result in results for done in result) == count
    replayed: Any = redis_bytes.xrange(STREAM)
    numbers = [fields[b"n"] for _, fields in replayed]
    assert sorted(numbers) == sorted(b"%d" % n for n in range(count))
    assert redis_bytes.xlen(DLQ) == 0
    assert redis_bytes.keys("event-router:*") == []


@pytest.mark.parametrize("raw", [False, True], ids=["script", "transaction"])
async def test_a_letter_whose_stream_refuses_it_stays(
    redis_bytes: redis.Redis, dead_letters: DeadLetters, raw: bool
) -> None:
    original = many_fields() if raw else [(b"type", b"login")]
    add(redis_bytes, DLQ, ([(b"dlq_raw", packed(original))] if raw else original) + own_fields())
    redis_bytes.set(STREAM, "no stream")
    with pytest.raises(RedisRefused, match=rf"of {DLQ} was not given back to {STREAM}: .*WRONGTYPE"):
        await replay(dead_letters)
    assert redis_bytes.xlen(DLQ) == 1
    assert redis_bytes.get(STREAM) == b"no stream"
    redis_bytes.delete(STREAM)
    assert [done.outcome for done in await replay(dead_letters)] == ["replayed"]


@pytest.mark.parametrize("raw", [False, True], ids=["script", "transaction"])
async def test_out_of_memory_loses_and_doubles_nothing(new_server: Callable[..., Server], raw: bool) -> None:
    server = new_server().start()
    original = many_fields() if raw else [(b"type", b"login")]
    client = open_client(parse_url(server.url), timeout_s=10)
    with server.client(decode_responses=False) as plain:
        add(plain, DLQ, ([(b"dlq_raw", packed(original))] if raw else original) + own_fields())
        plain.config_set("maxmemory", "1mb")
        with pytest.raises(RedisUnavailable, match="not given back"):
            await replay(DeadLetters(client))
        assert (plain.xlen(DLQ), plain.exists(STREAM)) == (1, 0)
        plain.config_set("maxmemory", "0")
        await replay(DeadLetters(client))
        assert (plain.xlen(DLQ), plain.xlen(STREAM)) == (0, 1)
    await client.aclose(close_connection_pool=True)


@pytest.mark.parametrize("raw", [False, True], ids=["script", "transaction"])
async def test_a_user_who_may_not_delete_letters_doubles_none(
    redis_bytes: redis.Redis, server: Server, raw: bool
) -> None:
    original = many_fields() if raw else [(b"type", b"login")]
    add(redis_bytes, DLQ, ([(b"dlq_raw", packed(original))] if raw else original) + own_fields())
    redis_bytes.acl_setuser("half", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-xdel"])
    client = open_client(parse_url(server.url.replace("//", "//half:pw@")), timeout_s=10)
    try:
        with pytest.raises(EventRouterError, match="XDEL"):
            await replay(DeadLetters(client))
    finally:
        await client.aclose(close_connection_pool=True)
        redis_bytes.acl_deluser("half")
    assert (redis_bytes.xlen(DLQ), redis_bytes.exists(STREAM)) == (1, 0)


async def test_what_cannot_be_replayed_is_skipped_and_says_why(
    redis_bytes: redis.Redis, dead_letters: DeadLetters
) -> None:
    add(redis_bytes, DLQ, own_fields(reason="trimmed"))
    add(redis_bytes, DLQ, [(b"written", b"by hand")])
    add(redis_bytes, DLQ, [(b"type", b"login"), *own_fields(stream="stats:daily")])
    done = await replay(dead_letters)
    assert [result.outcome for result in done] == ["skipped"] * 3
    assert "trimmed" in done[0].why
    assert "router" in done[1].why
    assert redis_bytes.xlen(DLQ) == 3
    assert redis_bytes.keys("*") == [DLQ.encode()]


async def test_a_dry_run_changes_nothing(redis_bytes: redis.Redis, dead_letters: DeadLetters) -> None:
    for _ in range(3):
        add(redis_bytes, DLQ, [(b"type", b"login"), *own_fields()])
    assert [done.outcome for done in await replay(dead_letters, dry_run=True)] == ["would replay"] * 3
    assert await dead_letters.purge(DLQ, dry_run=True) == 3
    assert redis_bytes.xlen(DLQ) == 3
    assert not redis_bytes.exists(STREAM)


async def test_replay_is_throttled(redis_bytes: redis.Redis, dead_letters: DeadLetters) -> None:
    for _ in range(6):
        add(redis_bytes, DLQ, [(b"type", b"login"), *own_fields()])
    begin = time.monotonic()
    await replay(dead_letters, rate=25)
    assert time.monotonic() - begin >= 5 / 25


async def test_choices(redis_bytes: redis.Redis, dead_letters: DeadLetters) -> None:
    for n, (type_, reason) in enumerate(
        [("login", "invalid"), ("auth:login", "poison"), ("logout", "poison"), ("", "invalid")], start=1
    ):
        fields = (
            [(b"type", type_.encode())] if type_ else [(b"data", json.dumps({"type": "logout"}).encode())]
        )
        add(redis_bytes, DLQ, fields + own_fields(reason=reason), f"{n}000-0")

    async def chosen(**choice: Any) -> list[str]:
        return [letter.id async for letter in dead_letters.letters(DLQ, Choice(**choice))]

    assert await chosen() == ["1000-0", "2000-0", "3000-0", "4000-0"]
    assert await chosen(reason="poison") == ["2000-0", "3000-0"]
    assert await chosen(type="login") == ["1000-0", "2000-0"]
    assert await chosen(type="logout") == ["3000-0", "4000-0"]
    assert await chosen(since_ms=2000, until_ms=3000) == ["2000-0", "3000-0"]
    assert await chosen(since_ms=9000) == []
    assert await chosen(ids=frozenset({"3000-0", "1000-0", "7000-0"})) == ["1000-0", "3000-0"]
    assert await chosen(ids=frozenset({"3000-0", "1000-0"}), reason="poison") == ["3000-0"]
    assert await dead_letters.purge(DLQ, Choice(reason="poison")) == 2
    assert await chosen() == ["1000-0", "4000-0"]


async def test_all_pages_are_read_whatever_their_size(
    redis_bytes: redis.Redis, dead_letters: DeadLetters
) -> None:
    for n in range(1200):
        value = b"x" * (300_000 if n % 100 == 50 else 10)
        add(redis_bytes, DLQ, [(b"n", b"%d" % n), (b"value", value), *own_fields()])
    numbers = [int(letter.fields[0][1]) async for letter in dead_letters.letters(DLQ)]
    assert numbers == list(range(1200))
    assert await dead_letters.purge(DLQ) == 1200


async def test_a_row_shows_what_is_no_utf8_with_escapes(
    redis_bytes: redis.Redis, dead_letters: DeadLetters
) -> None:
    letter_id = add(redis_bytes, DLQ, [(b"type", b"log\xffin"), *own_fields()])
    letter = await dead_letters.show(DLQ, letter_id)
    assert letter is not None
    assert letter.row() == {
        "stream": STREAM,
        "id": letter_id,
        "origin_id": ORIGIN,
        "type": "log\\xffin",
        "reason": "invalid",
        "error": "field 'user_id' is missing",
        "deliveries": 3,
        "time": "2026-01-01T00:00:01.000Z",
    }
    assert await dead_letters.show(DLQ, "1-1") is None
    assert [letter async for letter in dead_letters.letters("dlq:nowhere")] == []


async def test_redis_that_is_not_there(server: Server) -> None:
    client = open_client(parse_url("redis://127.0.0.1:1/0"), timeout_s=1)
    with pytest.raises(RedisUnavailable):
        await DeadLetters(client).purge(DLQ)
    await client.aclose(close_connection_pool=True)
