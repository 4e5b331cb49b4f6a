"""docs/tracing.md: its examples do what it says, and the spans have the attributes it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from event_router.ops import span_export, span_maker
from event_router.settings import Settings
from tests.conftest import RouterFactory
from tests.environment.collector import Collector
from tests.environment.servers import Server
from tests.environment.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tracing.md").read_text(encoding="utf-8")
FILES = {
    name: text
    for text, name in re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}


@pytest.mark.once
def test_the_examples_make_one_trace_with_the_attributes_that_are_named(
    server: Server, redis_client: redis.Redis, new_router: RouterFactory, tmp_path: Path
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    handlers = "handlers.auth:AuthEventHandler,rides:RideHandler"
    with Collector() as collector:
        ours = {"TRACING": "parent", "APP_DIR": tmp_path, "HANDLERS": handlers}
        new_router(server.url, variables=collector.variables | {"PYTHONPATH": str(ROOT)}, **ours).start()
        done = subprocess.run(
            [sys.executable, str(tmp_path / "website.py")],
            env=os.environ | collector.variables | {"REDIS_URL": server.url, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        redis_client.xadd("events:rides", {"type": "ridden", "bike_id": "b1"})
        redis_client.xadd("events:rides", {"type": "crashed", "bike_id": "b1"})
        eventually(lambda: redis_client.xlen("dlq:events:rides"), within=10)
        eventually(lambda: len(collector.spans("process")) == 2, within=10)
        eventually(lambda: collector.spans("dead-letter"), within=10)
        eventually(lambda: collector.spans("receive") and collector.spans("commit"), within=10)

        (sent,) = collector.spans("send events:auth")
        (login,) = collector.spans("process events:auth")
        assert (login.trace_id, login.parent_id) == (sent.trace_id, sent.span_id)

        (own,) = collector.spans("look at the bike")
        ((_, emitted),) = redis_client.xrange("events:checks")
        assert emitted["traceparent"].split("-")[1:3] == [own.trace_id, own.span_id]
        assert own.parent_id == collector.spans("process events:rides")[0].span_id

        names = {name for span in collector.spans() for name in span.attributes}
        kinds = {1: "internal", 3: "client", 4: "producer", 5: "consumer"}
        operations = {(span.name.split()[0], kinds[span.kind]) for span in collector.spans()}
    rows = re.findall(r"^\| `([\w.]+)`(?:, `([\w.]+)`)? \|", PAGE.partition("| attribute |")[2], re.MULTILINE)
    named = {name for row in rows for name in row if "." in name}
    assert names == named
    table = re.findall(r"^\| `([\w-]+) \{stream\}` \| (\w+) \|", PAGE, re.MULTILINE)
    assert operations - {("send", "producer"), ("look", "internal")} == set(table)
    assert len(table) == 4


def test_settings_and_limits_are_those_of_the_code() -> None:
    modes = re.findall(r"^\| `(off|links|parent)` \|", PAGE, re.MULTILINE)
    assert (
        str(Settings.model_fields["tracing"].annotation) == f"typing.Literal[{', '.join(map(repr, modes))}]"
    )
    assert Settings.model_fields["tracing"].default == "off"
    assert f"at most {span_maker.MOST_LINKS} links" in PAGE
    assert f"{span_export.LONGEST_VALUE:,} characters" in PAGE
    assert f"at most {span_export.FLUSH_S:g} s for the last ones" in PAGE
