"""One line for each fault: printed as a table at the end, and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from faults.checker import Verdict
from faults.evidence import Evidence
from faults.history import Answered, CallFailed, History, Mark, Sent
from faults.table import HEALED
from faults.workload import Kind

BEGAN, OVER = "the fault begins", "the fault is over"
MEASURED = "measured:"
_HEADINGS = (
    ("fault", "name"),
    ("accepted", "accepted"),
    ("succeeded", "succeeded"),
    ("attempts", "attempts"),
    ("run again", "again"),
    ("lost", "lost"),
    ("twice", "twice"),
    ("failed calls", "failed_calls"),
    ("fault s", "lasted"),
    ("stall s", "stall"),
    ("wait s", "longest_wait"),
    ("recovery s", "recovery"),
    ("kept", "kept"),
)


@dataclass(frozen=True)
class Line:
    """What came out of one run.

    Attributes:
        name: The fault.
        seed: What decided about chance.
        accepted: Tasks whose client got an id.
        succeeded: Of these, those that have succeeded.
        attempts: Recorded ends of attempts.
        again: Runs of handlers beyond those that a run without faults needs.
        lost: Accepted tasks without a terminal state.
        twice: Tasks whose outcome is recorded more than once.
        failed_calls: Calls that failed in spite of the client's retries.
        lasted: For how many seconds the fault was there.
        stall: The longest time in which no task ended although there were some to run.
        longest_wait: The longest time from the acceptance of a task that could run at once to its end.
        recovery: From the end of the fault to the end of the last task that was accepted by then.
        kept: Whether all promises were kept.
        problems: Those that were not.
        notes: What else was measured: the marks of the run that begin with "measured".
    """

    name: str
    seed: int
    accepted: int
    succeeded: int
    attempts: int
    again: int
    lost: int
    twice: int
    failed_calls: int
    lasted: float
    stall: float
    longest_wait: float
    recovery: float
    kept: bool
    problems: str
    notes: tuple[str, ...] = ()


def line(
    name: str, seed: int, *, history: History, left: Evidence, verdict: Verdict, kinds: Mapping[str, Kind]
) -> Line:
    """Measure a run."""
    marks = {mark.what: mark.time for mark in history.of(Mark)}
    began = marks.get(BEGAN, 0.0)
    healed = marks.get(HEALED, marks.get(OVER, began))
    spans = list(_spans(history, left, kinds))
    return Line(
        name=name,
        seed=seed,
        accepted=verdict.accepted,
        succeeded=verdict.succeeded,
        attempts=verdict.attempts,
        again=verdict.again,
        lost=verdict.lost,
        twice=verdict.twice,
        failed_calls=verdict.failed_calls,
        lasted=round(healed - began, 1),
        stall=round(_stall(spans), 1),
        longest_wait=round(max((end - begin for begin, end in spans), default=0.0), 1),
        recovery=round(max([0.0, *(end - healed for begin, end in spans if begin <= healed)]), 1),
        kept=verdict.kept,
        problems="" if verdict.kept else str(verdict),
        notes=tuple(mark.what for mark in history.of(Mark) if mark.what.startswith(MEASURED)),
    )


def failures(history: History) -> list[str]:
    """What was said of calls that failed."""
    creations = (f"create: {one.error}" for one in history.of(Answered) if one.task_id is None)
    return [*(f"{one.call}: {one.error}" for one in history.of(CallFailed)), *creations]


def printed(lines: Sequence[Line]) -> str:
    """The table."""
    cells = [[heading for heading, _ in _HEADINGS]]
    cells += [[_cell(getattr(one, name)) for _, name in _HEADINGS] for one in lines]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    rows = ["  ".join(_padded(row, widths)).rstrip() for row in cells]
    broken = [f"\n{one.name} (seed {one.seed}):\n{one.problems}" for one in lines if not one.kept]
    notes = [f"\n{one.name}: {note.removeprefix(MEASURED).strip()}" for one in lines for note in one.notes]
    return "\n".join([*rows, *notes, *broken])


def write(lines: Sequence[Line], path: Path) -> None:
    """The same as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in lines], indent=1) + "\n", encoding="utf-8")


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        row[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
    ]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _spans(history: History, left: Evidence, kinds: Mapping[str, Kind]) -> list[tuple[float, float]]:
    """When tasks that could run at once were accepted, and when they ended."""
    prompt = {one.serial for one in history.of(Sent) if kinds[one.kind].prompt}
    ends = {row.task_id: row.end for row in left.rows if row.state.terminal}
    return [
        (min(one.time, ends[one.task_id]), ends[one.task_id])  # the answer may come after the end
        for one in history.of(Answered)
        if one.task_id in ends and one.serial in prompt
    ]


def _stall(spans: Sequence[tuple[float, float]]) -> float:
    """The longest time between two ends, or from an acceptance that found nothing to do to the next end."""
    moments = sorted([(end, 1) for _, end in spans] + [(begin, 0) for begin, _ in spans])
    stall, waiting, since = 0.0, 0, 0.0
    for moment, ended in moments:
        if ended:
            stall, waiting, since = max(stall, moment - since), waiting - 1, moment
        else:
            since = moment if waiting <= 0 else since
            waiting += 1
    return stall
