"""Calls about many tasks as a series of calls that goes on until all is done, shared by both clients.

The server works on one call for at most its deadline and says how far it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from meshq.client import operations
from meshq.client.models import Cancelled, TaskFilter
from meshq.client.operations import Operation, Progress, Steps
from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import MAX_FRAME_ITEMS


def cancel_many(task_ids: Iterable[str] | None, wanted: TaskFilter, reason: str) -> Steps[Cancelled]:
    """Ask for many tasks to end, named by id or by a filter."""

    def call(ids: Sequence[str], filter_: TaskFilter | None) -> Operation[Progress]:
        return operations.cancel_tasks(ids, filter_, reason)

    return (yield from _each_part(task_ids, wanted, call))


def delete_many(task_ids: Iterable[str] | None, wanted: TaskFilter) -> Steps[int]:
    """Remove many ended tasks, named by id or by a filter."""
    removed = yield from _each_part(task_ids, wanted, operations.delete_tasks)
    return removed.count


def redrive_many(wanted: TaskFilter, rate: float | None, max_tasks: int | None) -> Steps[int]:
    """Make new tasks of all that a filter selects, of at most `max_tasks`."""
    count = 0
    while max_tasks is None or count < max_tasks:
        left = None if max_tasks is None else max_tasks - count
        changed, complete, _ = yield operations.redrive_tasks(wanted, rate, left)
        count += changed
        if complete:
            break
    return count


def purge_queue(name: str, reason: str) -> Steps[int]:
    """Cancel all tasks of a queue that no worker has."""
    purged = yield from _complete(operations.purge_queue(name, reason))
    return purged.count


Call = Callable[[Sequence[str], TaskFilter | None], Operation[Progress]]


def _each_part(task_ids: Iterable[str] | None, wanted: TaskFilter, call: Call) -> Steps[Cancelled]:
    if (task_ids is None) == (not wanted):
        raise InvalidRequest.field("task_ids", "must be given, or else a filter, but not both")
    if task_ids is None:
        return (yield from _complete(call((), wanted)))
    count, missing = 0, list[str]()
    for ids in _parts(task_ids):
        part = yield from _complete(call(ids, None))
        count += part.count
        missing.extend(part.missing)
    return Cancelled(count, tuple(missing))


def _complete(operation: Operation[Progress]) -> Steps[Cancelled]:
    count, missing = 0, dict[str, None]()
    while True:
        changed, complete, unknown = yield operation
        count += changed
        missing.update(dict.fromkeys(unknown))
        if complete:
            return Cancelled(count, tuple(missing))


def _parts(task_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(task_ids)
    while part := tuple(islice(left, MAX_FRAME_ITEMS)):
        yield part
