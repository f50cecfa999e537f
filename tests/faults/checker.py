"""Decides whether a run has kept the promises: reads the history and what is left, and touches nothing.

What is promised:

- an accepted task ends, in a state that its kind allows, with one outcome that is its own;
- its terminal state never changes, in no event, in no read, and not in the ledger;
- no task appears that nobody created, and none twice;
- tasks with one ordering key run one after the other, as they were accepted;
- a limit is never exceeded by those that hold a lease;
- with one attempt a task is started once; before its time it is not started at all;
- the counters of the queues say what the ledger says.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from faults.evidence import Counters, End, Evidence, Execution, Row
from faults.history import Answered, CallFailed, CancelAsked, History, Seen, Sent
from faults.workload import KINDS, Kind

from meshq.client import AttemptOutcome, TaskState

CLOCK = 0.002
"""Seconds by which two notes of one moment may differ: the databases keep milliseconds."""
_SHOWN = 5
_CLOSED_BY_OTHERS = frozenset(
    {AttemptOutcome.LOST, AttemptOutcome.TIMED_OUT, AttemptOutcome.CANCELLED, AttemptOutcome.UNSPECIFIED}
)


@dataclass
class Verdict:
    """What came out.

    Attributes:
        problems: A sentence for each broken promise, by promise.
        accepted: Tasks whose client got an id.
        succeeded: Of these, those that have succeeded.
        attempts: Recorded ends of attempts.
        again: Runs of handlers beyond those that a run without faults needs; allowed.
        lost: Accepted tasks that have no terminal state.
        twice: Tasks whose outcome is recorded more than once.
        failed_calls: Calls that ended with an error in spite of the client's retries.
    """

    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    accepted: int = 0
    succeeded: int = 0
    attempts: int = 0
    again: int = 0
    lost: int = 0
    twice: int = 0
    failed_calls: int = 0

    @property
    def kept(self) -> bool:
        """Whether all promises were kept."""
        return not self.problems

    def __str__(self) -> str:
        lines = []
        for promise, found in self.problems.items():
            lines.append(f"{promise}: {len(found)}")
            lines += [f"  {one}" for one in found[:_SHOWN]]
        return "\n".join(lines) or "all promises kept"


def check(history: History, evidence: Evidence, kinds: Mapping[str, Kind] = KINDS) -> Verdict:
    """Compare what was said with what there is."""
    return _Check(history, evidence, kinds).run()


class _Check:
    def __init__(self, history: History, evidence: Evidence, kinds: Mapping[str, Kind]) -> None:
        self.history = history
        self.evidence = evidence
        self.kinds = kinds
        self.verdict = Verdict()
        self.sent = {one.serial: one for one in history.of(Sent)}
        self.answers = {one.serial: one for one in history.of(Answered)}
        self.accepted = {one.task_id: one.serial for one in history.of(Answered) if one.task_id}
        self.rows: dict[str, Row] = {row.task_id: row for row in evidence.rows}
        self.ends: dict[str, list[End]] = defaultdict(list)
        for end in evidence.ends:
            self.ends[end.task_id].append(end)
        self.executions: dict[str, list[Execution]] = defaultdict(list)
        for execution in evidence.executions:
            self.executions[execution.task_id].append(execution)

    def run(self) -> Verdict:
        self.count()
        self.check_ends()
        self.check_recorded_once()
        self.check_states_stay()
        self.check_known()
        self.check_order()
        self.check_limits()
        self.check_starts()
        self.check_counters()
        return self.verdict

    def problem(self, promise: str, sentence: str) -> None:
        self.verdict.problems[promise].append(sentence)

    def kind_of(self, row: Row) -> Kind | None:
        sent = self.sent.get(row.serial) if row.serial is not None else None
        return self.kinds[sent.kind] if sent else None

    def count(self) -> None:
        verdict = self.verdict
        verdict.accepted = len(self.accepted)
        verdict.attempts = len(self.evidence.ends)
        succeeded = {row.task_id for row in self.evidence.rows if row.state is TaskState.SUCCEEDED}
        verdict.succeeded = len(succeeded & self.accepted.keys())
        verdict.failed_calls = sum(1 for _ in self.history.of(CallFailed)) + sum(
            1 for one in self.answers.values() if one.task_id is None
        )
        for row in self.evidence.rows:
            kind = self.kind_of(row)
            verdict.again += max(0, len(self.executions[row.task_id]) - (kind.starts if kind else 1))

    def check_ends(self) -> None:
        for task_id, serial in self.accepted.items():
            row = self.rows.get(task_id)
            if row is None or not row.state.terminal:
                self.verdict.lost += 1
                what = "is not in the ledger" if row is None else f"is still {row.state}"
                self.problem("lost", f"{self.name(task_id)} {what}")
            elif row.state not in (allowed := self.kinds[self.sent[serial].kind].ends):
                self.problem(
                    "wrong end", f"{self.name(task_id)} is {row.state}, not {' or '.join(sorted(allowed))}"
                )
        for row in self.evidence.rows:
            if not row.state.terminal and row.task_id not in self.accepted:
                self.problem("not ended", f"{self.name(row.task_id)}, whose client got no id, is {row.state}")
        asked = {one.task_id for one in self.history.of(CancelAsked)}
        for row in self.evidence.rows:
            if row.state is TaskState.CANCELLED and row.task_id not in asked:
                self.problem("wrong end", f"{self.name(row.task_id)} is cancelled, and nobody asked for it")

    def check_recorded_once(self) -> None:
        twice = {
            task_id
            for task_id, count in Counter(row.task_id for row in self.evidence.rows).items()
            if count > 1
        }
        for task_id in twice:
            self.problem("recorded twice", f"{self.name(task_id)} has several rows in the ledger")
        for task_id, ends in self.ends.items():
            successes = [end for end in ends if end.outcome is AttemptOutcome.SUCCEEDED]
            numbers = Counter(end.attempt for end in ends)
            if len(successes) > 1 or max(numbers.values()) > 1:
                twice.add(task_id)
                self.problem(
                    "recorded twice", f"{self.name(task_id)}: ends of attempts {sorted(numbers.elements())}"
                )
            self.check_outcome(task_id, successes)
        self.verdict.twice = len(twice)
        for row in self.evidence.rows:
            if row.state is TaskState.SUCCEEDED and row.task_id not in self.ends:
                self.problem("outcome", f"{self.name(row.task_id)} has succeeded without an attempt")

    def check_outcome(self, task_id: str, successes: list[End]) -> None:
        row = self.rows.get(task_id)
        if row is None:
            self.problem("unknown", f"attempts of {task_id}, which is no task")
            return
        won = row.state is TaskState.SUCCEEDED
        if won != bool(successes) and row.state.terminal:
            self.problem(
                "outcome", f"{self.name(task_id)} is {row.state}, with {len(successes)} successful attempts"
            )
        for end in successes:
            if won and end.attempt != row.attempt:
                self.problem(
                    "outcome", f"{self.name(task_id)}: attempt {end.attempt} succeeded, not {row.attempt}"
                )
            if end.result != row.serial:
                self.problem("outcome", f"{self.name(task_id)} has the result of task number {end.result}")

    def check_states_stay(self) -> None:
        ended: dict[str, dict[TaskState, str]] = defaultdict(dict)
        by_source: set[tuple[str, str]] = set()
        for seen in self.history.of(Seen):
            if seen.state.terminal:
                ended[seen.task_id].setdefault(seen.state, seen.source)
                by_source.add((seen.source, seen.task_id))
            elif (seen.source, seen.task_id) in by_source:
                self.problem(
                    "changed",
                    f"{self.name(seen.task_id)} was {seen.state} in {seen.source} after it had ended",
                )
        for row in self.evidence.rows:
            if row.task_id in ended or row.state.terminal:
                ended[row.task_id].setdefault(row.state, "the ledger")
        for task_id, states in ended.items():
            if len(states) > 1:
                said = ", ".join(f"{state} in {source}" for state, source in states.items())
                self.problem("changed", f"{self.name(task_id)} was {said}")

    def check_known(self) -> None:
        serials: dict[int, str] = {}
        for row in self.evidence.rows:
            if row.serial is None or row.serial not in self.sent:
                self.problem("unknown", f"{row.task_id} was created by nobody")
                continue
            if serials.setdefault(row.serial, row.task_id) != row.task_id:
                self.problem(
                    "unknown", f"{self.name(row.task_id)} exists twice, as {serials[row.serial]} as well"
                )
            answer = self.answers.get(row.serial)
            if answer and answer.task_id not in (None, row.task_id) and not self.stands_for(answer, row):
                self.problem("unknown", f"{self.name(row.task_id)} was answered as {answer.task_id}")
        seen = {one.task_id for one in self.history.of(Seen)} | self.executions.keys()
        for task_id in seen - self.rows.keys() - self.accepted.keys() - self.evidence.before:
            self.problem("unknown", f"{task_id} was seen or executed, and is not in the ledger")

    def stands_for(self, answer: Answered, row: Row) -> bool:
        """Whether another task may have been the answer: it held the unique key."""
        other = self.rows.get(answer.task_id or "")
        if other is None or other.serial is None or row.serial is None:
            return False
        mine, theirs = self.sent[row.serial], self.sent.get(other.serial)
        return theirs is not None and mine.kind == theirs.kind == "unique" and mine.key == theirs.key

    def check_order(self) -> None:
        chains: dict[str, list[Row]] = defaultdict(list)
        for serial, sent in sorted(self.sent.items()):
            answer = self.answers.get(serial)
            if self.kinds[sent.kind].key == "ordering_key" and answer and answer.task_id in self.rows:
                chains[sent.key].append(self.rows[answer.task_id])
        for chain in chains.values():
            for before, after in itertools.pairwise(chain):
                starts = self.executions[after.task_id]
                if starts and starts[0].start < (end := self.end_of(before)) - CLOCK:
                    early = f"{(end - starts[0].start) * 1000:.0f} ms"
                    self.problem(
                        "order",
                        f"{self.name(after.task_id)} began {early} before {self.name(before.task_id)} ended",
                    )

    def end_of(self, row: Row) -> float:
        """When the attempt that decided about a task has ended: by its handler, or else by the ledger."""
        decided = {end.lease for end in self.ends[row.task_id] if end.attempt == row.attempt}
        ends = [one.end for one in self.executions[row.task_id] if one.lease in decided and one.end]
        return max(ends) if ends and row.state is TaskState.SUCCEEDED else row.end

    def check_limits(self) -> None:
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.evidence.rows:
            kind = self.kind_of(row)
            if kind and kind.limit and row.serial is not None:
                sent = self.sent[row.serial]
                groups[sent.kind, sent.key].append(row)
        for (name, key), rows in groups.items():
            limit = self.kinds[name].limit
            spans = [span for row in rows for span in self.held(row)]
            if (most := at_once(spans)) > limit:
                self.problem(
                    "limit", f"{most} tasks of kind {name}, key {key!r} at a time; {limit} are allowed"
                )

    def held(self, row: Row) -> Iterator[tuple[float, float]]:
        """When a task certainly held its lease.

        What a worker does on after its lease is lost does not count, and only the lease whose end is recorded
        is known to have been held until then.
        """
        recorded = {end.lease: end for end in self.ends[row.task_id]}
        for one in self.executions[row.task_id]:
            if (end := recorded.get(one.lease)) is None:
                continue
            limits = [one.end] if one.end else []
            if end.outcome in _CLOSED_BY_OTHERS or not limits:
                limits.append(end.end)
            yield one.start, min(limits)

    def check_starts(self) -> None:
        for row in self.evidence.rows:
            kind, runs = self.kind_of(row), self.executions[row.task_id]
            if not kind or not runs or row.serial is None:
                continue
            if kind.once and len(runs) > 1:
                self.problem(
                    "started twice",
                    f"{self.name(row.task_id)} has one attempt and was started {len(runs)} times",
                )
            sent = self.sent[row.serial]
            if sent.delay and runs[0].start < sent.time + sent.delay - CLOCK:
                self.problem("too early", f"{self.name(row.task_id)} was started before its time")

    def check_counters(self) -> None:
        if self.evidence.counters is None:
            return
        states = Counter(row.state for row in self.evidence.rows)
        there = Counters(
            len(self.evidence.rows),
            states[TaskState.SUCCEEDED],
            states[TaskState.FAILED],
            states[TaskState.CANCELLED],
            states[TaskState.EXPIRED],
        )
        if there != self.evidence.counters:
            self.problem("counters", f"the ledger has {there}, its counters say {self.evidence.counters}")

    def name(self, task_id: str) -> str:
        row = self.rows.get(task_id)
        serial = row.serial if row else self.accepted.get(task_id)
        sent = self.sent.get(serial) if serial is not None else None
        return f"{sent.kind if sent else 'task'} {serial} ({task_id})"


def at_once(spans: Iterable[tuple[float, float]]) -> int:
    """How many of the spans overlap at most; what ends and begins within the clock's grain does not."""
    most, ends = 0, list[float]()
    for start, end in sorted(spans):
        while ends and ends[0] <= start + CLOCK:
            heapq.heappop(ends)
        if end > start:
            heapq.heappush(ends, end)
        most = max(most, len(ends))
    return most
