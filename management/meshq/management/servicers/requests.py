"""What calls that create tasks have in common: request ids and frames."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from meshq.contract.errors import (
    Conflict,
    InternalError,
    InvalidRequest,
    MeshqError,
    Reason,
)
from meshq.contract.limits import DEFAULT_TENANT, MAX_FRAME_ITEMS
from meshq.contract.status import to_status
from meshq.management.admission import refused
from meshq.management.conversion.tasks import Content, accept_content, new_task
from meshq.management.conversion.values import text_id
from meshq.management.create import Accepted, Creator
from meshq.management.model.claims import (
    Answer,
    Claim,
    ClaimKind,
    Submission,
    Verdict,
    claim_name,
    encoded_answers,
    fingerprint,
)
from meshq.management.model.queues import UNSET, QueueSettings
from meshq.management.model.states import State
from meshq.management.model.task import NO_ID, NewTask, TaskId
from meshq.management.model.validation import check_frame, check_request_id
from meshq.mesh import context
from meshq.v1 import task_pb2, task_service_pb2

TENANT = DEFAULT_TENANT

_PATHS: Final = [f"tasks[{index}]" for index in range(MAX_FRAME_ITEMS)]
"""The paths of the tasks of a batch, for their violations."""
_CreateTaskResult = task_service_pb2.CreateTaskResult


class Admission(Protocol):
    """Says of queues what they are set to and whether they take tasks."""

    def settings(self, tenant: str, queue: str) -> QueueSettings:
        """What a queue is set to."""

    def refusal(self, tenant: str, queue: str, settings: QueueSettings) -> Verdict | None:
        """Why the queue takes no task now: DRAINING or FULL."""


Entry = NewTask | InvalidRequest | Answer
"""A good task, why it breaks a rule, or why its queue does not take it."""


class Frame(NamedTuple):
    """A checked batch.

    Attributes:
        submission: The good tasks.
        entries: For each task of the batch, in order, what it is.
        claim: The claim of the request, also where no task is good.
    """

    submission: Submission
    entries: list[Entry]
    claim: Claim | None


def effective_request_id(given: str) -> str:
    """The request id of the call: the caller's, or the one that the gateway keeps over its retries.

    Raises:
        InvalidRequest: The caller's breaks its rule.
    """
    check_request_id(given)
    if not given and context.edge():
        return context.request_id()
    return given


def frame(
    kind: ClaimKind, tasks: Sequence[task_pb2.Task], size: int, request_id: str, admission: Admission
) -> Frame:
    """Check a batch, each task for itself.

    Args:
        kind: Which call it came by.
        tasks: The tasks.
        size: Their encoded size together.
        request_id: That of the batch. What the gateway gives a call is not that of each of its frames.
        admission: What their queues are set to.

    Raises:
        InvalidRequest: The batch as a whole breaks a rule.
    """
    check_frame("tasks", len(tasks), size)
    check_request_id(request_id)
    entries: list[Entry] = []
    contents: list[bytes] = []
    for task, path in zip(tasks, _PATHS, strict=False):
        try:
            content = accept_content(task, path)
        except InvalidRequest as error:
            entries.append(error)
        else:
            entries.append(_entry(task, content, admission))
            contents.append(content.encoded)
    return _framed(kind, request_id, entries, contents)


def single(task: task_pb2.Task, request_id: str, admission: Admission) -> Frame:
    """One task as a batch of its own.

    Raises:
        InvalidRequest: A field breaks its rule.
    """
    request_id = effective_request_id(request_id)
    content = accept_content(task, "task")
    return _framed(ClaimKind.CREATE, request_id, [_entry(task, content, admission)], [content.encoded])


def _entry(task: task_pb2.Task, content: Content, admission: Admission) -> Entry:
    settings = admission.settings(TENANT, task.queue)
    if settings is not UNSET and (verdict := admission.refusal(TENANT, task.queue, settings)):
        return Answer(NO_ID, verdict)
    return new_task(task, content, TENANT, settings)


def _framed(kind: ClaimKind, request_id: str, entries: list[Entry], contents: list[bytes]) -> Frame:
    tasks = [entry for entry in entries if isinstance(entry, NewTask)]
    claim = None
    if request_id and contents:
        all_good = len(tasks) == len(entries)
        answers = (
            b"".join([task.task_id for task in tasks])
            if all_good
            else encoded_answers([_expected(entry) for entry in entries])
        )
        claim = Claim(claim_name(kind, TENANT, request_id), fingerprint(contents), answers, len(entries))
    return Frame(Submission(tasks, claim, sum(map(len, contents))), entries, claim)


def _expected(entry: Entry) -> Answer:
    if isinstance(entry, NewTask):
        return Answer(entry.task_id)
    return entry if isinstance(entry, Answer) else Answer(NO_ID)


def submit(creator: Creator, checked: Frame) -> Awaitable[Accepted | None]:
    """Store what is good of a batch; gives None when nothing is, and the request was not made before.

    Raises:
        Overloaded: Too much waits to be stored.
    """
    if checked.submission.tasks:
        return creator.submit(checked.submission)
    return _earlier(creator, checked.claim)


async def _earlier(creator: Creator, claim: Claim | None) -> Accepted | None:
    return await creator.earlier(claim) if claim else None


def results(checked: Frame, accepted: Accepted | None) -> list[task_service_pb2.CreateTaskResult]:
    """The answers to a batch, in its order.

    Args:
        checked: The batch.
        accepted: What became of the good tasks; None when there were none.
    """
    if all_stored(accepted):
        return [
            _CreateTaskResult(task_id=text_id(entry.task_id))
            if isinstance(entry, NewTask)
            else _result(entry, _expected(entry))
            for entry in checked.entries
        ]
    pairs = zip(checked.entries, _answers(checked, accepted), strict=True)
    return [_result(entry, answer) for entry, answer in pairs]


def created(checked: Frame, accepted: Accepted | None) -> tuple[NewTask | None, TaskId]:
    """The task of a batch of one, if it is new, and the id of the task that stands for it.

    Raises:
        MeshqError: There is none.
    """
    (entry,), (answer,) = checked.entries, _answers(checked, accepted)
    if error := _error(entry, answer):
        raise error
    if not (isinstance(entry, NewTask) and entry.task_id == answer.task_id):
        return None, answer.task_id
    assert accepted is not None
    waits = entry.task_id in accepted.waiting
    return entry._replace(state=State.WAITING) if waits else entry, entry.task_id


def answers(checked: Frame, accepted: Accepted | None) -> Iterator[tuple[Entry, TaskId, MeshqError | None]]:
    """Each task of a batch, with the id of the task that stands for it, or why it was not accepted."""
    for entry, answer in zip(checked.entries, _answers(checked, accepted), strict=True):
        yield entry, answer.task_id, _error(entry, answer)


def all_stored(accepted: Accepted | None) -> bool:
    """Whether all that was good of a batch was stored now, as by far the most batches are."""
    return accepted is not None and not (accepted.earlier is not None or accepted.refused or accepted.others)


def _answers(checked: Frame, accepted: Accepted | None) -> Sequence[Answer]:
    if accepted is None:
        return [_expected(entry) for entry in checked.entries]
    if accepted.earlier is not None:
        return accepted.earlier
    if not (accepted.refused or accepted.others):
        return [_expected(entry) for entry in checked.entries]
    changed = {**dict.fromkeys(accepted.refused, Answer(NO_ID)), **accepted.others}
    return [changed.get(answer.task_id, answer) for answer in map(_expected, checked.entries)]


def _result(entry: Entry, answer: Answer) -> task_service_pb2.CreateTaskResult:
    if error := _error(entry, answer):
        return _CreateTaskResult(error=to_status(error))
    if answer.verdict == Verdict.EXISTING:
        return _CreateTaskResult(task_id=text_id(answer.task_id), existing=True)
    return _CreateTaskResult(task_id=text_id(answer.task_id))


def _error(entry: Entry, answer: Answer) -> MeshqError | None:
    """Why a task was not accepted; None when it was, or another one stands for it."""
    task_id, verdict = answer
    if verdict in (Verdict.NEW, Verdict.EXISTING):
        if task_id != NO_ID:
            return None
        return entry if isinstance(entry, InvalidRequest) else refusal()
    if verdict == Verdict.TAKEN:
        text = text_id(task_id)
        return Conflict(f"The unique_key is held by task {text}.", Reason.UNIQUE_KEY_TAKEN, task_id=text)
    return refused(verdict)


def refusal() -> InternalError:
    """Why a task is not stored that breaks no rule of ours."""
    return InternalError("The ledger refused the task; the log has the reason.")
