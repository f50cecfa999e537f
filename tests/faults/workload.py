"""The load of a fault run: tasks of all kinds at a steady pace, a watcher and a reader."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from faults.history import Answered, CallFailed, CancelAsked, History, Seen, Sent

from meshq.client import Client, RetryPolicy, TaskSpec, TaskState
from meshq.contract.errors import MeshqError, Reason

_FORM = os.environ.get("MESHQ_FAULTS_SHORT", "")
SHORT = _FORM not in {"", "0"}
FEW = SHORT and _FORM != "all"
"""Whether to play only those faults that are played for every change."""
TASKS = int(os.environ.get("MESHQ_FAULT_TASKS", "400" if SHORT else "3000"))
RATE = float(os.environ.get("MESHQ_FAULT_RATE", "400"))
CALL_TIMEOUT = 180.0

PLAIN, KEYED, NARROW, POISONED = "plain", "keyed", "narrow", "poisoned"
QUEUES = (PLAIN, KEYED, NARROW, POISONED)
PER_KEY, NARROW_LIMIT, POISON_LIMIT = 2, 8, 100
POISONED_LIMIT = 3
LONG = 2.0
_TICK = 0.02
_KEYS = 8
_UNDER_WAY = 2_000
_SUCCEEDS = frozenset({TaskState.SUCCEEDED})


@dataclass(frozen=True)
class Kind:
    """A kind of tasks.

    Attributes:
        share: Of so many tasks in all shares together.
        options: What its tasks say beside type and serial number.
        payload: What their payload says beside the serial number.
        ends: The states in which they may end, whatever happens.
        key: Which of the options is its key; empty without keys.
        keys: How many tasks in a row share a unique key, or else how many keys there are.
        limit: Tasks of one key, or of the queue without keys, that may run at a time; 0 for no limit.
        bulk: Whether they go through the bulk stream; others are created one by one.
        starts: How often the handler runs where nothing fails.
        prompt: Whether they can run as soon as they are accepted, so that their time says something.
    """

    share: int
    type: str = "note"
    queue: str = PLAIN
    options: Mapping[str, Any] | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    ends: frozenset[TaskState] = _SUCCEEDS
    key: str = ""
    keys: int = _KEYS
    limit: int = 0
    bulk: bool = True
    starts: int = 1
    prompt: bool = True
    once: bool = False
    cancelled: bool = False


_QUICK = RetryPolicy(initial_delay=0.1, multiplier=1.5, max_delay=1.0)
_DURABLE = {"max_attempts": 50, "retry": _QUICK}
KINDS: Mapping[str, Kind] = {
    "plain": Kind(48, options=_DURABLE),
    "single": Kind(8, options=_DURABLE, bulk=False),
    "retried": Kind(8, "stumble", options=_DURABLE, starts=2),
    "ordered": Kind(9, options=_DURABLE, key="ordering_key", bulk=False, prompt=False),
    "limited": Kind(8, "linger", KEYED, options=_DURABLE, key="limit_key", limit=PER_KEY, prompt=False),
    "narrow": Kind(4, "linger", NARROW, options=_DURABLE, limit=NARROW_LIMIT, prompt=False),
    "unique": Kind(4, options=_DURABLE, key="unique_key", keys=2, limit=1, bulk=False, prompt=False),
    # With one attempt a worker that dies takes its task along.
    "once": Kind(4, options={"max_attempts": 1}, ends=_SUCCEEDS | {TaskState.FAILED}, once=True),
    "delayed": Kind(3, options=_DURABLE, prompt=False),
    "cancelled": Kind(
        2, options=_DURABLE, ends=_SUCCEEDS | {TaskState.CANCELLED}, prompt=False, bulk=False, cancelled=True
    ),
    "crunched": Kind(2, "crunch", options=_DURABLE, prompt=False),
    # Only sent by faults that want somebody in mid-task.
    "long": Kind(0, "linger", options=_DURABLE, payload={"seconds": LONG}, bulk=False),
    "long-crunched": Kind(0, "crunch", options=_DURABLE, payload={"seconds": LONG}, prompt=False, bulk=False),
    "killer": Kind(
        0, "kill", POISONED, options=_DURABLE, ends=frozenset({TaskState.FAILED}), prompt=False, bulk=False
    ),
}


class Load:
    """Clients at work, from `async with` to `finish`.

    Attributes:
        accepted: Ids by serial number.
        refused: How many creations have ended with an error.
    """

    def __init__(
        self,
        target: str,
        history: History,
        chance: random.Random,
        *,
        tasks: int = TASKS,
        rate: float = RATE,
        kinds: Mapping[str, Kind] = KINDS,
        first: int = 0,
    ) -> None:
        """Nothing happens before it is entered.

        Args:
            target: The edge.
            history: Where everything is noted.
            chance: Decides about kinds and delays.
            tasks: How many to send at least; the load goes on until `finish` is called.
            rate: Tasks per second.
            kinds: What to send.
            first: The first serial number.
        """
        self.history = history
        self.tasks = tasks
        self.accepted: dict[int, str] = {}
        self.refused = 0
        self.sent = 0
        self._target = target
        self._chance = chance
        self._rate = rate
        self._kinds = kinds
        self._serials = itertools.count(first)
        self._bulk: asyncio.Queue[tuple[int, TaskSpec] | None] = asyncio.Queue()
        self._keyed: dict[str, asyncio.Queue[tuple[int, TaskSpec] | None]] = {}
        self._enough = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._watchers: list[asyncio.Task[None]] = []
        self._pacer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Declare the queues and begin."""
        self.client = Client(self._target, timeout=CALL_TIMEOUT)
        await self.client.update_queue(PLAIN, allow_missing=True, poison_limit=POISON_LIMIT)
        await self.client.update_queue(
            KEYED, allow_missing=True, poison_limit=POISON_LIMIT, max_running_per_key=PER_KEY
        )
        await self.client.update_queue(
            NARROW, allow_missing=True, poison_limit=POISON_LIMIT, max_running=NARROW_LIMIT
        )
        await self.client.update_queue(POISONED, allow_missing=True, poison_limit=POISONED_LIMIT)
        self._watchers = [asyncio.create_task(self._watch()), asyncio.create_task(self._read())]
        self._start(self._send_bulk())
        self._pacer = asyncio.create_task(self._pace())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End whatever is left."""
        tasks = [*self._watchers, *self._calls, *([self._pacer] if self._pacer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()

    async def reaches(self, count: int) -> None:
        """Wait until so many tasks are accepted."""
        while len(self.accepted) < count:
            self._raise_failures()
            await asyncio.sleep(_TICK)

    async def finish(self, within: float) -> None:
        """Send the rest, as far as the time in seconds allows, and wait for all answers."""
        self._enough.set()
        assert self._pacer is not None
        await asyncio.wait({self._pacer}, timeout=within)
        self.tasks = min(self.tasks, self.sent)
        await self._pacer
        self._bulk.put_nowait(None)
        for queue in self._keyed.values():
            queue.put_nowait(None)
        while self._calls:
            await asyncio.wait(set(self._calls))
            self._raise_failures()

    def send(self, kind: str) -> int:
        """Send one task of a kind, beyond those of the load; returns its serial number."""
        serial = next(self._serials)
        self._send(serial, kind)
        return serial

    async def stop_watching(self) -> None:
        """End the watcher and the reader."""
        self._raise_failures()
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    def _raise_failures(self) -> None:
        for task in [*self._watchers, *([self._pacer] if self._pacer else [])]:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    def _start(self, coroutine: Any) -> None:
        call = asyncio.create_task(coroutine)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _pace(self) -> None:
        begin = time.monotonic()
        while self.sent < self.tasks or not self._enough.is_set():
            # What was missed while this process had no time is not made up for at once.
            due = min(
                int((time.monotonic() - begin) * self._rate), self.sent + int(self._rate * 10 * _TICK) + 1
            )
            while self.sent < due and self._wants_more():
                self._send_one()
            begin = max(begin, time.monotonic() - (self.sent + self._rate) / self._rate)
            await asyncio.sleep(_TICK)

    def _wants_more(self) -> bool:
        """A client that gets no answers does not send without end."""
        under_way = self.sent - len(self.accepted) - self.refused
        return under_way < _UNDER_WAY and (self.sent < self.tasks or not self._enough.is_set())

    def _send_one(self) -> None:
        self.sent += 1
        names = list(self._kinds)
        shares = [self._kinds[one].share for one in names]
        self._send(next(self._serials), self._chance.choices(names, shares)[0])

    def _send(self, serial: int, name: str) -> None:
        kind = self._kinds[name]
        key, spec = self._spec(kind, serial)
        delay = float(spec.start_delay) if isinstance(spec.start_delay, float) else 0.0
        self.history.add(Sent(time.time(), serial, name, key, delay))
        if kind.bulk:
            self._bulk.put_nowait((serial, spec))
        elif kind.key == "ordering_key":
            self._send_in_order(key, serial, spec)
        else:
            self._start(self._create(serial, spec, cancel=kind.cancelled))

    def _spec(self, kind: Kind, serial: int) -> tuple[str, TaskSpec]:
        options: dict[str, Any] = dict(kind.options or {})
        key = ""
        if kind.key:
            key = f"{serial // kind.keys}" if kind.key == "unique_key" else f"{serial % kind.keys}"
            options[kind.key] = key
        if kind is self._kinds.get("delayed"):
            options["start_delay"] = round(self._chance.uniform(0.3, 2.0), 3)
        elif kind.cancelled:
            options["start_delay"] = 1.0
        return key, TaskSpec(
            type=kind.type, payload={"n": serial, **kind.payload}, queue=kind.queue, **options
        )

    def _send_in_order(self, key: str, serial: int, spec: TaskSpec) -> None:
        """One creation of a key after the other: what the client saw accepted first comes first."""
        if key not in self._keyed:
            self._keyed[key] = asyncio.Queue()
            self._start(self._send_chain(self._keyed[key]))
        self._keyed[key].put_nowait((serial, spec))

    async def _send_chain(self, queue: asyncio.Queue[tuple[int, TaskSpec] | None]) -> None:
        while (item := await queue.get()) is not None:
            await self._create(*item)

    async def _create(self, serial: int, spec: TaskSpec, *, cancel: bool = False) -> None:
        options = {name: getattr(spec, name) for name in _OPTIONS if getattr(spec, name) is not None}
        try:
            task = await self.client.create(spec.type, spec.payload, **options)
        except MeshqError as error:
            self._answered(serial, None, repr(error))
            return
        self._answered(serial, task.task_id)
        if cancel:
            await asyncio.sleep(self._chance.uniform(0.0, 2.0))
            await self._cancel(task.task_id)

    async def _cancel(self, task_id: str) -> None:
        self.history.add(CancelAsked(time.time(), task_id))
        try:
            await self.client.cancel(task_id, "the load says so")
        except MeshqError as error:
            self.history.add(CallFailed(time.time(), "cancel", repr(error)))

    async def _send_bulk(self) -> None:
        """One stream for everything; after an error that no retry mends, a new one for what comes then."""
        ended = False
        while not ended:
            under_way: list[int] = []
            answered = 0

            async def source(under_way: list[int] = under_way) -> AsyncIterator[TaskSpec]:
                nonlocal ended
                while (item := await self._bulk.get()) is not None:
                    under_way.append(item[0])
                    yield item[1]
                ended = True

            try:
                async for created in self.client.create_many(source()):
                    self._answered(under_way[created.index], created.task_id, repr(created.error))
                    answered += 1
            except MeshqError as error:
                for serial in under_way[answered:]:
                    self._answered(serial, None, repr(error))

    def _answered(self, serial: int, task_id: str | None, error: str = "") -> None:
        self.history.add(Answered(time.time(), serial, task_id, "" if task_id else error))
        if task_id is None:
            self.refused += 1
        else:
            self.accepted[serial] = task_id

    async def _watch(self) -> None:
        """Every change of every task."""
        number = itertools.count(1)
        while True:
            source = f"watch-{next(number)}"
            try:
                async for change in self.client.watch_tasks(timeout=CALL_TIMEOUT):
                    self._see(source, change.task.task_id, change.task.attempt, change.task.state)
            except MeshqError as error:
                # So much has happened since it broke off that it has to begin anew: that is the contract.
                if error.reason is not Reason.RESUME_LOST:
                    self.history.add(CallFailed(time.time(), "watch", repr(error)))

    async def _read(self) -> None:
        """A few tasks at a time, old ones and new ones, again and again."""
        while True:
            known = list(self.accepted.values())
            if wanted := self._chance.sample(known, min(len(known), 50)):
                try:
                    found = await self.client.get_many(wanted)
                except MeshqError as error:
                    self.history.add(CallFailed(time.time(), "read", repr(error)))
                else:
                    for task in found.tasks:
                        self._see("read", task.task_id, task.attempt, task.state)
            await asyncio.sleep(0.2)

    def _see(self, source: str, task_id: str, attempt: int, state: TaskState) -> None:
        self.history.add(Seen(time.time(), source, task_id, attempt, state))


_OPTIONS = ("queue", "max_attempts", "retry", "start_delay", "limit_key", "ordering_key", "unique_key")
