"""Commits what is ready, a batch at a time, while the next is read and handled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from event_router.core.errors import NoGroup, RedisDenied, RedisRefused, RedisUnavailable
from event_router.core.outcome import Answer, Answers, Reason, Verdict
from event_router.runtime.commit_queue import CommitQueue
from event_router.runtime.connectivity import Clock, Connectivity
from event_router.runtime.delivery import Delivery, InFlight
from event_router.runtime.denied import Denied
from event_router.runtime.observer import Observer
from event_router.runtime.ports import CommitPort
from event_router.runtime.services import Service


class Returns(Protocol):
    """Takes deliveries that the commit sends back."""

    def run_again(self, delivery: Delivery) -> None:
        """Run the handler again."""

    def reject(self, delivery: Delivery, reason: Reason, error: str) -> None:
        """Make the delivery a dead letter."""


class _Sent:
    """Whether a batch was sent before without an answer."""

    __slots__ = ("resent",)

    def __init__(self, resent: bool) -> None:
        self.resent = resent


class Committer(Service):
    """Commits what became ready, one batch after the other. Its duties:

    1. take a batch from the queue;
    2. send it until it is answered: the gate makes sending it again safe;
    3. carry out the answer for each entry.

    Two of them share the queue and the connection, on which commits are made in the order in which they
    were sent: Redis works on one while this process carries out the answers to the other.
    """

    name = "commit"

    def __init__(
        self,
        clock: Clock,
        *,
        commits: CommitPort,
        in_flight: InFlight,
        connectivity: Connectivity,
        observer: Observer,
        recreate: Callable[[str], Awaitable[None]],
        postpone: Callable[[Delivery, str], None],
        queue: CommitQueue,
        denied: Denied[Delivery],
        caller: str = "",
    ) -> None:
        super().__init__(clock)
        self._commits = commits
        self._in_flight = in_flight
        self._connectivity = connectivity
        self._observer = observer
        self._recreate = recreate
        self._postpone = postpone
        self._queue = queue
        self._denied = denied
        self._caller = caller
        self.returns: Returns

    async def run(self) -> None:
        """Commit until cancelled."""
        try:
            while True:
                batch = self._queue.take()
                if not batch:
                    self.rest()
                    await self._queue.wait()
                    continue
                self.beat()
                try:
                    await self.commit(batch)
                finally:
                    self._queue.settled(batch)
        finally:
            self._denied.stop()

    async def commit(self, batch: list[Delivery], resent: bool = False) -> None:
        """Commit these deliveries and carry out the answers.

        `resent`: they were sent before, in another batch, and the answer may have been lost.
        """
        packed = self._commits.pack([delivery.prepared for delivery in batch])
        sent = _Sent(resent)
        started = self.clock.monotonic()
        try:
            answers = await self._send(batch, packed, sent)
        except RedisRefused as error:
            await self._isolate(batch, error, resent=sent.resent)
            return
        except (RedisDenied, NoGroup) as error:
            await self._set_apart(batch, error, resent=sent.resent)
            return
        self._queue.adjust(sum(delivery.prepared.weight for delivery in batch), answers.blocked_s)
        resent = sent.resent
        committed: list[Delivery] = []
        denied: list[Delivery] = []
        denial: RedisDenied | None = None
        applied = Verdict.COMMITTED
        applied_before = Verdict.SETTLED if resent else applied
        for delivery, answer in zip(batch, answers, strict=True):
            verdict = answer.verdict
            if verdict is applied or verdict is applied_before:
                committed.append(delivery)
            elif verdict is Verdict.DENIED:
                denied.append(delivery)
                denial = RedisDenied(_prevented(answer.reason))
            else:
                self._carry_out(delivery, answer)
        trimmed: dict[str, list[str]] = {}
        for delivery in committed:
            self._leave(delivery, applied=True)
            if delivery.letter is not None and delivery.letter.reason == "trimmed":
                trimmed.setdefault(delivery.entry.stream, []).append(delivery.entry.id)
        for stream, ids in trimmed.items():
            self._observer.trimmed(stream, ids)
        if committed:
            self._observer.committed(committed, self.clock.monotonic() - started)
        self._denied.settle(batch, denied, denial)

    async def _send(self, batch: list[Delivery], packed: bytes, sent: _Sent) -> Answers:
        """Send until answered, and note whether an earlier answer may have been lost.

        Raises:
            RedisRefused: Redis refuses the batch for good.
            RedisDenied: the user may not commit it.
            NoGroup: the group is still missing after it should have been created.
        """
        missing: set[str] = set()
        while True:
            self.beat()
            try:
                answers = await self._commits.send(packed)
            except (RedisRefused, RedisDenied):
                self._connectivity.answered("commit", self._caller)
                raise
            except NoGroup as error:
                self._connectivity.answered("commit", self._caller)
                if error.stream in missing:
                    raise
                missing.add(error.stream)
                self._queue.hold()
                await self._recreate(error.stream)
                await self._keep_order(batch)
            except RedisUnavailable as error:
                sent.resent = True
                self._queue.hold()
                await self._connectivity.failed("commit", error, self._caller)
                await self._keep_order(batch)
            else:
                self._connectivity.answered("commit", self._caller)
                return answers

    async def _keep_order(self, batch: list[Delivery]) -> None:
        """Before a batch is sent again, let the one before it be committed."""
        if self._queue.is_behind(batch):
            self.rest()
            await self._queue.those_before(batch)

    def _carry_out(self, delivery: Delivery, answer: Answer) -> None:
        verdict, reason = answer.verdict, answer.reason
        if verdict is Verdict.CONFLICT:
            delivery.conflicts += 1
            self._observer.conflict(delivery)
            if delivery.turn is not None:
                delivery.turn.release(applied=False)
            self.returns.run_again(delivery)
        elif verdict is Verdict.SETTLED:
            self._leave(delivery, applied=False)
            self._observer.duplicate(delivery)
        elif verdict is Verdict.BROKEN:
            self._observer.refused(f"commit of {delivery.entry.stream} {delivery.entry.id}", reason)
            self._leave(delivery, applied=False)
        elif delivery.letter is not None:
            self._observer.refused(f"dead letter of {delivery.entry.stream} {delivery.entry.id}", reason)
            self._postpone(delivery, reason)
        else:
            if delivery.turn is not None:
                delivery.turn.release(applied=False)
            self.returns.reject(delivery, "invalid", reason)

    async def _isolate(self, batch: list[Delivery], error: RedisRefused, *, resent: bool) -> None:
        """Redis refused the whole batch for good: find the entry it refuses, spare the others."""
        if len(batch) > 1:
            self._queue.hold()
            middle = len(batch) // 2
            await self.commit(batch[:middle], resent)
            await self.commit(batch[middle:], resent)
            return
        delivery = batch[0]
        self._denied.settle(batch, [], None)
        self._observer.refused(f"commit of {delivery.entry.stream} {delivery.entry.id}", str(error))
        if delivery.turn is not None:
            delivery.turn.release(applied=False)
        self._postpone(delivery, str(error))

    async def _set_apart(self, batch: list[Delivery], error: RedisDenied | NoGroup, *, resent: bool) -> None:
        """The whole batch cannot be committed, maybe for one of its streams: spare the others."""
        by_stream: dict[str, list[Delivery]] = {}
        for delivery in batch:
            by_stream.setdefault(delivery.entry.stream, []).append(delivery)
        if len(by_stream) == 1:
            # A group that cannot be created waits for an operator as a permission does.
            denial = error if isinstance(error, RedisDenied) else RedisDenied(str(error))
            self._denied.settle(batch, batch, denial)
            return
        self._queue.hold()
        for deliveries in by_stream.values():
            await self.commit(deliveries, resent)

    def _leave(self, delivery: Delivery, *, applied: bool) -> None:
        if delivery.turn is not None:
            delivery.turn.release(applied=applied)
        self._in_flight.remove(delivery)
        if delivery.letter is not None and applied:
            self._observer.dead_lettered(delivery, delivery.letter.reason, delivery.letter.error)


def _prevented(what: str) -> str:
    """Say what keeps the commit from being made: a key of the router's own, or a missing permission."""
    return what if what.startswith("key ") else f"NOPERM this user may not {what}"
