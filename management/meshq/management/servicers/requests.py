"""What calls that create tasks have in common: request ids and frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshq.contract.errors import InternalError, InvalidRequest
from meshq.contract.limits import DEFAULT_TENANT
from meshq.contract.status import to_status
from meshq.management.conversion.tasks import accept_content, new_task
from meshq.management.conversion.values import text_id
from meshq.management.create import Accepted
from meshq.management.model.claims import Claim, ClaimKind, Submission, claim_name, fingerprint
from meshq.management.model.task import NO_ID, NewTask
from meshq.management.model.validation import check_frame, check_request_id
from meshq.mesh import context
from meshq.v1 import task_pb2, task_service_pb2

TENANT = DEFAULT_TENANT

_CreateTaskResult = task_service_pb2.CreateTaskResult


class Frame(NamedTuple):
    """A checked batch.

    Attributes:
        submission: The good tasks.
        entries: For each task of the batch, in order: the task, or why it is refused.
    """

    submission: Submission
    entries: list[NewTask | InvalidRequest]


def effective_request_id(given: str) -> str:
    """The request id of the call: the caller's, or the one that the gateway keeps over its retries.

    Raises:
        InvalidRequest: The caller's breaks its rule.
    """
    check_request_id(given)
    if not given and context.edge():
        return context.request_id()
    return given


def single(task: task_pb2.Task, request_id: str) -> tuple[NewTask, Submission]:
    """One task as a submission of its own.

    Raises:
        InvalidRequest: A field breaks its rule.
    """
    request_id = effective_request_id(request_id)
    content = accept_content(task, "task")
    accepted = new_task(task, content, TENANT)
    return accepted, _submission(ClaimKind.CREATE, request_id, [accepted], [content])


def frame(kind: ClaimKind, tasks: Sequence[task_pb2.Task], size: int, request_id: str) -> Frame:
    """Check a batch, each task for itself.

    Args:
        kind: Which call it came by.
        tasks: The tasks.
        size: Their encoded size together.
        request_id: The caller's request id.

    Raises:
        InvalidRequest: The batch as a whole breaks a rule.
    """
    check_frame("tasks", len(tasks), size)
    request_id = effective_request_id(request_id)
    entries: list[NewTask | InvalidRequest] = []
    contents: list[bytes] = []
    for index, task in enumerate(tasks):
        try:
            content = accept_content(task, f"tasks[{index}]")
        except InvalidRequest as error:
            entries.append(error)
        else:
            entries.append(new_task(task, content, TENANT))
            contents.append(content)
    return Frame(_submission(kind, request_id, entries, contents), entries)


def _submission(
    kind: ClaimKind, request_id: str, entries: Sequence[NewTask | InvalidRequest], contents: list[bytes]
) -> Submission:
    tasks = [entry for entry in entries if isinstance(entry, NewTask)]
    claim = None
    if request_id and tasks:
        task_ids = b"".join(entry.task_id if isinstance(entry, NewTask) else NO_ID for entry in entries)
        claim = Claim(claim_name(kind, TENANT, request_id), fingerprint(contents), task_ids)
    return Submission(tasks, claim, sum(map(len, contents)))


def results(checked: Frame, accepted: Accepted | None) -> list[task_service_pb2.CreateTaskResult]:
    """The answers to a batch, in its order.

    Args:
        checked: The batch.
        accepted: What became of the good tasks; None when there were none.
    """
    earlier = accepted.earlier_ids if accepted else None
    refused = accepted.refused if accepted else frozenset()
    answers = []
    for index, entry in enumerate(checked.entries):
        if earlier is not None:
            task_id = earlier[16 * index : 16 * index + 16]
        else:
            task_id = entry.task_id if isinstance(entry, NewTask) and entry.task_id not in refused else NO_ID
        if task_id != NO_ID:
            answers.append(_CreateTaskResult(task_id=text_id(task_id)))
        else:
            error = entry if isinstance(entry, InvalidRequest) else refusal()
            answers.append(_CreateTaskResult(error=to_status(error)))
    return answers


def refusal() -> InternalError:
    """Why a task is not stored that breaks no rule of ours."""
    return InternalError("The ledger refused the task; the log has the reason.")
