"""Reading tasks and queues, and what is said when PostgreSQL or execution is away."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from fixtures.failures import failure
from fixtures.management import Node, cluster, report, until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import InvalidRequest, NotFound, Reason, Unavailable
from meshq.local.servers import Postgres
from meshq.management.model.task import TaskFilter
from meshq.management.postgres.selections import conditions
from meshq.management.servicers import reading
from meshq.v1 import queue_service_pb2, task_pb2, task_service_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
FAILED = task_pb2.ATTEMPT_OUTCOME_FAILED
SUCCEEDED_STATE = task_pb2.TASK_STATE_SUCCEEDED
PENDING = task_pb2.TASK_STATE_PENDING
SCHEDULED = task_pb2.TASK_STATE_SCHEDULED
RETRYING = task_pb2.TASK_STATE_RETRYING
MANY = """
INSERT INTO open_tasks (id, ready_ms, touched_ms, max_attempts, state, tenant, queue, type, labels, spec)
SELECT
    gen_random_uuid(), 0, 0, 3, CASE WHEN n % 5000 = 1 THEN 4 ELSE 3 END, 'default',
    CASE WHEN n % 10000 = 2 THEN 'rare' ELSE 'q' END, CASE WHEN n % 10000 = 3 THEN 'rare' ELSE 't' END,
    CASE WHEN n % 100 = 4 THEN ARRAY['a=' || n % 1000 / 100] END, convert_to(repeat('x', 200), 'UTF8')
FROM generate_series(1, 20000) AS n
"""


async def listed(node: Node, **filters: object) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    token = ""
    while True:
        request = task_service_pb2.ListTasksRequest(page_token=token, **filters)  # type: ignore[arg-type]
        page = await node.tasks.ListTasks(request)
        ids += [task.task_id for task in page.tasks]
        if not (token := page.next_page_token):
            return ids


async def test_lists_go_page_by_page(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        tasks = [await node.create(queue="ab"[n % 2], type="t") for n in range(9)]
        ids = [task.task_id for task in tasks][::-1]
        assert await listed(node, page_size=4) == ids
        assert await listed(node, page_size=1, queue="a") == ids[::2]
        assert await listed(node, page_size=9) == ids
        assert await listed(node, min_create_time=tasks[4].create_time, page_size=3) == ids[:5]
        assert await listed(node, type="none") == []
        page = await node.tasks.ListTasks(task_service_pb2.ListTasksRequest(page_size=2))
        assert page.tasks[0].state == task_pb2.TASK_STATE_PENDING
        other = task_service_pb2.ListTasksRequest(page_token=page.next_page_token, queue="a")
        error = await failure(node.tasks.ListTasks(other))
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == "page_token"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (task_service_pb2.ListTasksRequest(page_size=-1), "page_size"),
        (task_service_pb2.ListTasksRequest(page_size=1_001), "page_size"),
        (task_service_pb2.ListTasksRequest(page_token="x"), "page_token"),
        (task_service_pb2.ListTasksRequest(queue="?"), "queue"),
        (task_service_pb2.ListTasksRequest(type="?"), "type"),
        (task_service_pb2.ListTasksRequest(view=9), "view"),  # type: ignore[arg-type]
        (task_service_pb2.ListTasksRequest(states=[99]), "states[0]"),  # type: ignore[list-item]
        (task_service_pb2.ListTasksRequest(labels=["a"]), "labels[0]"),
        (task_service_pb2.ListTasksRequest(labels=["a=b", "?=b"]), "labels[1]"),
        (task_service_pb2.ListTasksRequest(labels=["a=" + "x" * 129]), "labels[0]"),
        (task_service_pb2.ListTasksRequest(labels=["a=b"] * 17), "labels"),
    ],
)
async def test_a_bad_list_names_its_field(
    database: str, request_: task_service_pb2.ListTasksRequest, field: str
) -> None:
    async with cluster(database) as system:
        error = await failure(system.nodes[0].tasks.ListTasks(request_))
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]


async def counted(node: Node, **filters: object) -> int:
    request = task_service_pb2.CountTasksRequest(**filters)  # type: ignore[arg-type]
    return (await node.tasks.CountTasks(request)).count


async def test_labels_types_and_states_select_in_lists_and_counts(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        prod = await node.create(labels={"env": "prod", "team": "a/b=c"}, queue="q")
        test = await node.create(labels={"env": "test"}, type="u")
        plain = await node.create()
        await node.report(report(uuid.UUID(test.task_id).bytes, 1, SUCCEEDED))
        filters: list[tuple[dict[str, Any], list[task_pb2.Task]]] = [
            ({"labels": ["env=prod"]}, [prod]),
            ({"labels": ["team=a/b=c", "env=prod"], "queue": "q", "type": "t"}, [prod]),
            ({"labels": ["env=prod", "env=test"]}, []),
            ({"labels": ["env=test"], "states": [SUCCEEDED_STATE]}, [test]),
            ({"labels": ["env=test"], "states": [PENDING]}, []),
            ({"type": "u"}, [test]),
            ({"states": [PENDING]}, [plain, prod]),
            ({"states": [PENDING, SUCCEEDED_STATE]}, [plain, test, prod]),
            ({"min_create_time": test.create_time, "queue": "default"}, [plain, test]),
        ]
        for wanted, expected in filters:
            ids = [task.task_id for task in expected]
            assert await listed(node, page_size=2, **wanted) == ids, wanted
            assert await counted(node, **wanted) == len(ids), wanted


async def test_what_is_due_is_found_as_pending_and_no_longer_as_scheduled(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create(start_delay=Duration(seconds=2_000))
        retried = await node.create()
        failed = report(uuid.UUID(retried.task_id).bytes, 1, FAILED, retry_delay_ms=3_000_000)
        await node.report(failed)
        now_ms = node.management.ledger._now_ms

        async def found(state: task_pb2.TaskState.ValueType) -> list[str]:
            return await listed(node, states=[state])

        assert (await found(SCHEDULED), await found(RETRYING)) == ([task.task_id], [retried.task_id])
        assert await found(PENDING) == []
        node.management.ledger._now_ms = lambda: now_ms() + 2_500_000
        assert (await found(SCHEDULED), await found(RETRYING)) == ([], [retried.task_id])
        assert await found(PENDING) == [task.task_id]
        assert await listed(node, states=[SCHEDULED, PENDING]) == [task.task_id]
        node.management.ledger._now_ms = lambda: now_ms() + 3_500_000
        assert await found(PENDING) == [retried.task_id, task.task_id]
        assert await counted(node, states=[RETRYING, SCHEDULED]) == 0


async def test_a_count_has_an_end(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_COUNT", 3)
    async with cluster(database) as system:
        (node,) = system.nodes
        for count in (3, 4):
            await node.create()
            while await node.management.ledger.count_tasks(TaskFilter("default"), 10) < count:
                await node.create()
            answer = await node.tasks.CountTasks(task_service_pb2.CountTasksRequest())
            assert (answer.count, answer.truncated) == (3, count > 3)


async def test_few_among_many_are_found_by_an_index(database: str) -> None:
    """Not how fast, but how: the blocks that have none of a queue or a label are not read."""
    async with cluster(database) as system:
        ledger = system.nodes[0].management.ledger
        connection = await system.nodes[0].management._database.connect()
        await connection.execute(MANY)
        await connection.execute("VACUUM (ANALYZE) open_tasks")
        await connection.execute("SET enable_seqscan = off")
        for wanted, index in (
            (TaskFilter("default", queue="rare"), "open_tasks_places"),
            (TaskFilter("default", type="rare"), "open_tasks_places"),
            (TaskFilter("default", labels=("a=9",)), "open_tasks_labels"),
            (TaskFilter("default", states=(4,)), "open_tasks_running"),
        ):
            chosen = conditions(wanted, 0)
            statement = f"EXPLAIN SELECT id FROM open_tasks WHERE {chosen.open} ORDER BY id DESC LIMIT 50"
            cursor = await connection.execute(statement, chosen.parameters)
            plan = "\n".join(row[0] for row in await cursor.fetchall())
            assert index in plan, plan
        assert len(await ledger.list_tasks(TaskFilter("default", queue="rare"), None, 50)) == 2
        await connection.close()


async def test_attempts_are_listed(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        attempts = [task_pb2.Attempt(attempt=n, outcome=FAILED, worker_id="w") for n in (1, 2)]
        system.execution.attempts[uuid.UUID(task.task_id).bytes] = attempts
        request = task_service_pb2.ListAttemptsRequest(task_id=task.task_id)
        assert list((await node.tasks.ListAttempts(request)).attempts) == attempts
        system.execution.away = True
        error = await failure(node.tasks.ListAttempts(request))
        assert error.reason == Reason.ATTEMPTS_UNAVAILABLE
        request.task_id = str(uuid.uuid4())
        assert isinstance(await failure(node.tasks.ListAttempts(request)), NotFound)
        request.task_id = "x"
        assert isinstance(await failure(node.tasks.ListAttempts(request)), InvalidRequest)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (task_service_pb2.CountTasksRequest(queue="?"), "queue"),
        (task_service_pb2.CountTasksRequest(labels=["x"]), "labels[0]"),
        (task_service_pb2.CountTasksRequest(states=[0]), "states[0]"),  # type: ignore[list-item]
    ],
)
async def test_a_bad_count_names_its_field(
    database: str, request_: task_service_pb2.CountTasksRequest, field: str
) -> None:
    async with cluster(database) as system:
        error = await failure(system.nodes[0].tasks.CountTasks(request_))
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]


async def test_several_tasks_by_id(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = [(await node.create(data=b"x")).task_id for _ in range(3)]
        done = uuid.UUID(ids[1]).bytes
        system.execution.record(done, 1, SUCCEEDED, "out")
        await node.report(report(done, 1, SUCCEEDED))
        missing = str(uuid.uuid4())
        request = task_service_pb2.BatchGetTasksRequest(task_ids=[*ids[::-1], missing, ids[0].upper()])
        found = await node.tasks.BatchGetTasks(request)
        assert [task.task_id for task in found.tasks] == [*ids[::-1], ids[0]]
        assert list(found.missing_task_ids) == [missing]
        assert not any(task.data for task in found.tasks)
        request.view = task_pb2.TASK_VIEW_FULL
        full = (await node.tasks.BatchGetTasks(request)).tasks
        assert [task.data for task in full] == [b"x"] * 4
        assert full[1].result.string_value == "out"
        for bad in ([], ["x"], [missing] * 1_001):
            error = await failure(
                node.tasks.BatchGetTasks(task_service_pb2.BatchGetTasksRequest(task_ids=bad))
            )
            assert isinstance(error, InvalidRequest)


async def test_full_views_are_bounded_by_bytes(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = [(await node.create(data=bytes([n]) * (1 << 20))).task_id for n in range(12)]
        assert await listed(node, page_size=12, view=task_pb2.TASK_VIEW_FULL) == ids[::-1]
        request = task_service_pb2.ListTasksRequest(page_size=12, view=task_pb2.TASK_VIEW_FULL)
        page = await node.tasks.ListTasks(request)
        assert 1 <= len(page.tasks) < 8
        assert all(len(task.data) == 1 << 20 for task in page.tasks)
        batch = task_service_pb2.BatchGetTasksRequest(task_ids=ids, view=task_pb2.TASK_VIEW_FULL)
        error = await failure(node.tasks.BatchGetTasks(batch))
        assert isinstance(error, InvalidRequest)
        assert error.message == "task_ids: must name tasks of at most 8388608 bytes; 7 fit, not 12"
        batch.view = task_pb2.TASK_VIEW_BASIC
        assert len((await node.tasks.BatchGetTasks(batch)).tasks) == 12


async def test_full_views_are_read_as_far_as_their_outcomes_fit(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        tasks = [await node.create() for _ in range(12)]
        for number, task in enumerate(tasks[:10]):
            task_id = uuid.UUID(task.task_id).bytes
            system.execution.record(task_id, 1, SUCCEEDED, f"out {number}")
            await node.report(report(task_id, 1, SUCCEEDED))
        system.execution.most_outcomes = 4
        ids = [task.task_id for task in tasks]
        batch = task_service_pb2.BatchGetTasksRequest(task_ids=ids[::-1], view=task_pb2.TASK_VIEW_FULL)
        found = (await node.tasks.BatchGetTasks(batch)).tasks
        assert [task.task_id for task in found] == ids[::-1]
        results = [task.result.string_value for task in found]
        assert results == ["", "", *(f"out {number}" for number in reversed(range(10)))]


async def test_an_unknown_task_is_not_found(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        error = await failure(node.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id=str(uuid.uuid4()))))
        assert isinstance(error, NotFound)
        error = await failure(node.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id="1")))
        assert isinstance(error, InvalidRequest)


async def test_queues_show_what_ledger_and_shards_know(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        for name in ("b", "a", "c"):
            await node.create(queue=name)
        await until(lambda: len(system.execution.shard) == 3)
        first = await node.queues.ListQueues(queue_service_pb2.ListQueuesRequest(page_size=2))
        assert [queue.queue for queue in first.queues] == ["a", "b"]
        rest = await node.queues.ListQueues(
            queue_service_pb2.ListQueuesRequest(page_size=2, page_token=first.next_page_token)
        )
        assert [queue.queue for queue in rest.queues] == ["c"]
        assert not rest.next_page_token
        queue = rest.queues[0]
        assert (queue.counts.open, queue.counts.pending, queue.complete) == (1, 1, True)
        assert queue.arrival_rate > 0
        system.execution.recovering = True

        async def incomplete() -> bool:
            shown = await node.queues.GetQueue(queue_service_pb2.GetQueueRequest(queue="c"))
            return not shown.complete

        await until(incomplete, "figures that say so")
        error = await failure(node.queues.GetQueue(queue_service_pb2.GetQueueRequest(queue="none")))
        assert error.reason == Reason.QUEUE_NOT_FOUND
        for bad in (
            node.queues.GetQueue(queue_service_pb2.GetQueueRequest(queue="?")),
            node.queues.ListQueues(queue_service_pb2.ListQueuesRequest(page_size=-1)),
            node.queues.ListQueues(queue_service_pb2.ListQueuesRequest(page_token="Pz8_")),
        ):
            assert isinstance(await failure(bad), InvalidRequest)


async def test_a_result_is_not_withheld_silently(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = uuid.UUID((await node.create()).task_id).bytes
        await node.report(report(task_id, 1, SUCCEEDED))
        text = str(uuid.UUID(bytes=task_id))

        system.execution.away = True
        error = await failure(node.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id=text)))
        assert isinstance(error, Unavailable)
        assert error.reason == Reason.COMPONENT_UNAVAILABLE
        assert (await node.get(text)).state == task_pb2.TASK_STATE_SUCCEEDED


async def test_a_restart_of_postgresql_is_survived(database: str, postgres_server: Postgres) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        before = await first.create()
        await asyncio.to_thread(postgres_server.stop)
        request = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="t"), request_id="r")
        errors = await asyncio.gather(
            failure(first.tasks.CreateTask(request)),
            failure(first.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id=before.task_id))),
            failure(second.queues.ListQueues(queue_service_pb2.ListQueuesRequest())),
        )
        for error in errors:
            assert isinstance(error, Unavailable)
            assert error.reason == Reason.LEDGER_UNAVAILABLE
            assert error.retry_delay
        # Not on another thread: the server ends with the thread that started it.
        postgres_server.start()
        await asyncio.to_thread(postgres_server.wait_ready)

        async def accepted() -> task_pb2.Task | None:
            try:
                return await first.tasks.CreateTask(request)
            except grpc.aio.AioRpcError:
                return None

        task = await until(accepted, "the reconnection")
        assert (await second.tasks.CreateTask(request)).task_id == task.task_id
        assert (await second.get(before.task_id)).task_id == before.task_id
        await until(lambda: len(system.execution.shard) == 2)
