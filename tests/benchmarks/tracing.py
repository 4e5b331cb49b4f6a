"""What tracing costs on the way from a read entry to its commit, with Redis faked.

    python -m tests.benchmarks.tracing [--events 5000] [--rounds 9] [--ways absent off]

Ways, in turn and each in a process of its own: `absent` (OpenTelemetry cannot be imported), `off`
(it is installed, and not asked for), `sampled` (on, one trace in a hundred), `all` (on, every trace;
spans are encoded by nobody). Prints processor time an event, and the ratio to `absent` by medians.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable

from event_router.ops.tracing import NoTracing, Tracing
from event_router.runtime.connectivity import Clock
from tests.unit.runtime_assembled import Runtime
from tests.unit.runtime_fakes import entry

WAYS = ("absent", "off", "sampled", "all")
BATCH = 500
REPETITIONS = 10
"""In one process; the least counts, for others use the processor's caches too."""
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class _Absent:
    """Finds no OpenTelemetry."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)


def tracing_of(way: str) -> Callable[[Clock], Tracing]:
    """What is measured."""
    if way == "absent":
        sys.meta_path.insert(0, _Absent())  # type: ignore[arg-type]  # a finder needs no more
    if way in ("absent", "off"):
        return lambda clock: NoTracing()
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased

    from event_router.ops.span_maker import SpanMaker
    from event_router.ops.spans import Spans

    provider = TracerProvider(sampler=ALWAYS_ON if way == "all" else TraceIdRatioBased(0.01))
    provider.add_span_processor(SpanProcessor())

    async def flush() -> None:
        """Nothing waits."""

    return lambda clock: Spans(
        SpanMaker(provider.get_tracer("bench"), clock, common={}), join=False, flush=flush
    )


async def measured(tracing: Callable[[Clock], Tracing], events: int) -> float:
    """Processor seconds an event."""
    runtime = Runtime(tracing=tracing, limit=2 * BATCH)
    batches = [
        [entry(n, f"b{n}", traceparent=TRACEPARENT) for n in range(first, first + BATCH)]
        for first in range(0, events, BATCH)
    ]
    gc.collect()
    gc.freeze()
    gc.disable()
    async with runtime:
        begin = time.process_time()
        for batch in batches:
            runtime.accept(*batch)
            await runtime.in_flight.wait_until(lambda: len(runtime.in_flight) <= BATCH // 2)
        await runtime.in_flight.wait_until(lambda: not len(runtime.in_flight))
        return (time.process_time() - begin) / events


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--way", choices=WAYS, help="measure this once and print the seconds an event")
    given = parser.parse_args()
    if given.way:
        tracing = tracing_of(given.way)
        print(min(asyncio.run(measured(tracing, given.events)) for _ in range(REPETITIONS)))
        return
    seconds: dict[str, list[float]] = defaultdict(list)
    command = [sys.executable, "-m", "tests.benchmarks.tracing", "--events", str(given.events), "--way"]
    for turn in range(given.rounds):
        for way in given.ways if turn % 2 else reversed(given.ways):
            done = subprocess.run([*command, way], capture_output=True, text=True, check=True)
            seconds[way].append(float(done.stdout))
    absent = statistics.median(seconds["absent"])
    for way in given.ways:
        median, least = statistics.median(seconds[way]), min(seconds[way])
        print(
            f"{way:8} {median * 1e6:6.2f} µs an event (least {least * 1e6:.2f})"
            f"   absent / {way}: {absent / median:.3f}"
        )


if __name__ == "__main__":
    main()
