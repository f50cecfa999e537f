"""Tasks that were read: only what a message has is set, and the rest is as in any other task."""

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from meshq.client import RetryPolicy, Task, TaskState, conversion
from meshq.v1 import task_pb2


def read(**fields: object) -> Task:
    return conversion.task(task_pb2.Task(task_id="id", type="t", queue="q", **fields))  # type: ignore[arg-type]


def test_a_task_that_was_read_is_as_one_that_was_made() -> None:
    made = Task(task_id="id", type="t", queue="q", state=TaskState.RUNNING, attempt=2, labels={"a": "b"})
    message = task_pb2.Task(state=task_pb2.TASK_STATE_RUNNING, attempt=2, labels={"a": "b"})
    found = read(state=message.state, attempt=message.attempt, labels=message.labels)
    assert found == made
    assert repr(found) == repr(made)
    assert asdict(found) == asdict(made)
    assert replace(found, attempt=3) == replace(made, attempt=3)
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == made


def test_an_empty_message_is_an_empty_task() -> None:
    assert conversion.task(task_pb2.Task()) == Task(task_id="", type="", queue="")


def test_what_has_another_name_here_is_found() -> None:
    assert read(retry_policy=task_pb2.RetryPolicy(multiplier=2.0)).retry == RetryPolicy(multiplier=2.0)


def test_absent_maps_are_not_shared() -> None:
    first, second = read(), read()
    assert first.labels == {}
    assert first.labels is not second.labels


def test_tasks_do_not_change_and_have_no_other_attributes() -> None:
    found = read()
    with pytest.raises(FrozenInstanceError):
        found.attempt = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="a task has no 'colour'"):
        found.colour  # noqa: B018
    assert not hasattr(found, "colour")
