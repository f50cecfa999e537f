"""Retries, frames, waiting and conversion of the client: decisions without I/O."""

import datetime as dt
from typing import Any

import pytest

from meshq.client import (
    UNSET,
    InstanceState,
    TaskFailed,
    TaskSpec,
    TaskState,
    WorkerMode,
    conversion,
    operations,
    waiting,
)
from meshq.client.channel import resolve_target
from meshq.client.ingest import Ingest
from meshq.client.retries import Attempts, CallRetries, is_resumable, never
from meshq.client.watching import TaskWatch
from meshq.contract.errors import (
    Aborted,
    CallCancelled,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    MeshqError,
    NotFound,
    Overloaded,
    Unavailable,
)
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.contract.status import to_status
from meshq.v1 import registry_service_pb2, task_pb2, worker_service_pb2
from meshq.v1.task_service_pb2 import CreateTaskResult, IngestTasksResponse, WatchTaskResponse


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(timeout: float | None = 10.0, **options: Any) -> tuple[Attempts, Clock]:
    clock = Clock()
    policy = options.pop("policy", CallRetries())
    return Attempts(policy, timeout, clock=clock, draw=lambda: 1.0, **options), clock


class TestRetries:
    def test_delays_grow_to_their_limit(self) -> None:
        tries, _ = attempts(1_000.0)
        delays = [tries.delay_after(Unavailable("down")) for _ in range(8)]
        assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

    def test_the_servers_delay_is_the_least(self) -> None:
        tries, _ = attempts()
        assert tries.delay_after(Overloaded("full", retry_delay=3.0)) == 3.0
        assert tries.delay_after(Unavailable("down", retry_delay=0.01)) == 0.2

    @pytest.mark.parametrize(
        "error", [NotFound("no"), InternalError("fault"), Overloaded("without a delay"), Aborted("slow")]
    )
    def test_what_repeating_does_not_mend_is_raised(self, error: MeshqError) -> None:
        with pytest.raises(type(error)):
            attempts()[0].delay_after(error)

    def test_the_deadline_is_not_passed_by_waiting(self) -> None:
        tries, clock = attempts(1.0)
        clock.now += 0.95
        with pytest.raises(Unavailable):
            tries.delay_after(Unavailable("down"))
        assert tries.remaining() == pytest.approx(0.05)

    def test_attempts_are_counted(self) -> None:
        tries, _ = attempts(policy=CallRetries(maximum_attempts=2))
        tries.delay_after(Unavailable("down"))
        with pytest.raises(Unavailable):
            tries.delay_after(Unavailable("down"))

    def test_unsafe_calls_are_not_repeated(self) -> None:
        with pytest.raises(Unavailable):
            attempts(mends=never)[0].delay_after(Unavailable("down"))

    def test_what_a_stopping_server_cancels_is_repeated_where_that_is_safe(self) -> None:
        assert attempts()[0].delay_after(CallCancelled("stopped")) > 0
        with pytest.raises(CallCancelled):
            attempts(mends=never)[0].delay_after(CallCancelled("stopped"))

    def test_streams_resume_and_begin_anew_with_each_success(self) -> None:
        tries, clock = attempts(1.0, mends=is_resumable)
        for error in (Aborted("slow"), DeadlineExceeded("old"), Unavailable("down")):
            clock.now += 0.9
            tries.progressed()
            assert tries.delay_after(error) == 0.1

    def test_without_a_deadline_it_goes_on(self) -> None:
        tries, clock = attempts(None)
        for _ in range(2_000):
            clock.now += 1_000
            tries.delay_after(Unavailable("down"))
        assert tries.remaining() is None


def answer(frame: Any) -> IngestTasksResponse:
    results = [CreateTaskResult(task_id=task.type) for task in frame.tasks]
    return IngestTasksResponse(results=results)


class TestIngest:
    def test_frames_are_cut_by_count(self) -> None:
        ingest = Ingest(window=3)
        for number in range(2_500):
            ingest.add(TaskSpec(type=f"t{number}"))
        first, second = ingest.take(), ingest.take()
        assert first is not None
        assert second is not None
        assert ingest.take() is None  # Half a frame waits for more while others are under way.
        ingest.end()
        third = ingest.take()
        assert third is not None
        assert [len(frame.tasks) for frame in (first, second, third)] == [
            MAX_FRAME_ITEMS,
            MAX_FRAME_ITEMS,
            500,
        ]
        assert ingest.full
        created = [item for frame in (first, second, third) for item in ingest.read(answer(frame))]
        assert [(item.index, item.task_id) for item in created] == [(n, f"t{n}") for n in range(2_500)]
        assert ingest.finished

    def test_frames_are_cut_by_size(self) -> None:
        ingest = Ingest()
        for size in (700_000, 700_000, 2_000_000, 10):
            ingest.add(TaskSpec(type="t", data=b"x" * size))
        ingest.end()
        frames = [ingest.take() for _ in range(4)]
        assert [len(frame.tasks) for frame in frames if frame] == [1, 1, 1, 1]

    def test_a_first_task_does_not_wait_for_a_frame(self) -> None:
        ingest = Ingest()
        ingest.add(TaskSpec(type="t"))
        assert ingest.take() is not None
        ingest.add(TaskSpec(type="t"))
        assert ingest.take() is None

    def test_each_frame_keeps_a_request_id_of_its_own(self) -> None:
        ingest = Ingest()
        for _ in range(1_001):
            ingest.add(TaskSpec(type="t"))
        ingest.end()
        first, second = ingest.take(), ingest.take()
        assert first is not None
        assert second is not None
        assert first.request_id != second.request_id
        assert list(ingest.restart()) == [first, second]

    def test_what_cannot_be_encoded_is_a_result_in_its_place(self) -> None:
        ingest = Ingest()
        specs = [
            TaskSpec(type="a"),
            TaskSpec(type="b", payload=b"x"),
            TaskSpec(type="c"),
            TaskSpec(type="d", payload=b"x"),
        ]
        for spec in specs:
            ingest.add(spec)
        ingest.end()
        frame = ingest.take()
        assert frame is not None
        created = [*ingest.read(answer(frame)), *ingest.leftover()]
        assert [item.task_id for item in created] == ["a", None, "c", None]
        assert isinstance(created[1].error, InvalidRequest)
        assert created[1].error.violations[0].field == "tasks[1].payload"

    def test_only_refused_tasks_need_no_frame(self) -> None:
        ingest = Ingest()
        ingest.add(TaskSpec(type="a", payload=b"x"))
        ingest.add(TaskSpec(type="b", data=b"x" * 9_000_000))
        ingest.end()
        assert ingest.take() is None
        assert ingest.finished
        assert [item.index for item in ingest.leftover()] == [0, 1]

    def test_answers_that_do_not_fit_are_a_fault(self) -> None:
        ingest = Ingest()
        with pytest.raises(InternalError, match="none is under way"):
            ingest.read(IngestTasksResponse())
        ingest.add(TaskSpec(type="a"))
        ingest.take()
        with pytest.raises(InternalError, match="0 results came for a frame of 1"):
            ingest.read(IngestTasksResponse())


def task(state: TaskState, attempt: int = 1) -> Any:
    return conversion.task(
        task_pb2.Task(task_id="id", type="t", state=conversion.state_number(state), attempt=attempt)
    )


class TestWaiting:
    def test_it_creates_once_and_then_waits_by_id(self) -> None:
        steps = waiting.run(TaskSpec(type="t"), None, None, check=False)
        first = next(steps)
        assert first.request.task.type == "t"  # type: ignore[attr-defined]
        assert first.request.request_id  # type: ignore[attr-defined]
        second = steps.send(task(TaskState.PENDING))
        assert second.request.task_id == "id"  # type: ignore[attr-defined]
        with pytest.raises(StopIteration) as end:
            steps.send(task(TaskState.SUCCEEDED))
        assert end.value.value.succeeded

    def test_it_ends_with_its_timeout(self) -> None:
        steps = waiting.wait_for("id", 0.0, check=False)
        assert next(steps).wait == 0.0
        with pytest.raises(DeadlineExceeded) as caught:
            steps.send(task(TaskState.RUNNING))
        assert caught.value.metadata == {"task_id": "id"}

    @pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED])
    def test_a_failure_is_raised_if_asked_for(self, state: TaskState) -> None:
        steps = waiting.wait_for("id", None, check=True)
        next(steps)
        with pytest.raises(TaskFailed, match=f"ended as {state}") as caught:
            steps.send(task(state))
        assert caught.value.task.state is state


def event(state: TaskState, attempt: int) -> WatchTaskResponse:
    number = conversion.state_number(state)
    return WatchTaskResponse(task=task_pb2.Task(task_id="id", state=number, attempt=attempt))


def test_a_resumed_watch_tells_only_news() -> None:
    watch = TaskWatch("id")
    events = [(TaskState.PENDING, 1), (TaskState.PENDING, 1), (TaskState.RUNNING, 1), (TaskState.RUNNING, 2)]
    assert [len(watch.read(event(*item))) for item in events] == [1, 0, 1, 1]
    assert not watch.ended
    assert watch.read(event(TaskState.SUCCEEDED, 2))
    assert watch.ended


class TestConversion:
    def test_a_task_comes_with_all_it_has(self) -> None:
        message = task_pb2.Task(
            task_id="id", type="t", queue="q", max_attempts=3, state=task_pb2.TASK_STATE_FAILED
        )
        message.create_time.FromDatetime(dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
        message.error.type = "ValueError"
        found = conversion.task(message)
        assert found.create_time == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
        assert (found.payload, found.data, found.result, found.end_time) == (UNSET, None, None, None)
        assert found.error is not None
        assert found.error.type == "ValueError"
        assert found.done
        assert not found.succeeded

    def test_what_a_newer_server_says_is_unspecified(self) -> None:
        assert conversion.task(task_pb2.Task(state=99)).state is TaskState.UNSPECIFIED  # type: ignore[arg-type]
        worker = worker_service_pb2.Worker(worker_id="w", mode=99)  # type: ignore[arg-type]
        assert conversion.worker(worker).mode is WorkerMode.UNSPECIFIED
        instances = registry_service_pb2.ListInstancesResponse()
        instances.instances.add(state=99)
        assert conversion.instances(instances)[0].state is InstanceState.UNSPECIFIED

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            (TaskSpec(type="t", payload={"a": [b"x"]}), "task.payload.a[0]"),
            (TaskSpec(type="t", payload=1, data=b"x"), "task.data"),
            (TaskSpec(type="t", max_attempts=0), "task.max_attempts"),
            (TaskSpec(type="t", max_attempts=1 << 40), "task.max_attempts"),
        ],
    )
    def test_what_cannot_be_sent_is_named(self, spec: TaskSpec, field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            operations.create_task(spec, None)
        assert caught.value.violations[0].field == field

    def test_naive_times_are_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="min_create_time: must have a time zone"):
            operations.list_tasks("", {"min_create_time": dt.datetime(2026, 1, 2)})  # noqa: DTZ001

    def test_errors_of_items_have_their_class(self) -> None:
        result = CreateTaskResult(error=to_status(Overloaded("full", retry_delay=1.0)))
        error = conversion.created(3, result).error
        assert isinstance(error, Overloaded)
        assert error.retry_delay == 1.0


def test_the_target_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHQ_TARGET", raising=False)
    assert resolve_target(None) == "localhost:8080"
    monkeypatch.setenv("MESHQ_TARGET", "xds:///meshq")
    assert resolve_target(None) == "xds:///meshq"
    assert resolve_target("host:1") == "host:1"
