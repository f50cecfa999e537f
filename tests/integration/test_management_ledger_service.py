"""What execution asks the ledger beside its reports."""

import uuid
from itertools import pairwise

import grpc
import psycopg
import pytest
from fixtures.management import cluster, report

from meshq.contract.errors import InvalidRequest
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import ledger_service_pb2 as pb
from meshq.v1 import task_pb2
from meshq.v1.task_service_pb2 import CancelTaskRequest

HIGHEST = b"\xff" * 16
ID = bytes(16)


def asked(*ranges: tuple[bytes, bytes]) -> pb.FindOpenTasksRequest:
    return pb.FindOpenTasksRequest(ranges=[pb.IdRange(first=first, end=end) for first, end in ranges])


async def test_ranges_say_whether_a_task_in_them_is_open(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = [uuid.UUID((await node.create()).task_id).bytes for _ in range(3)]
        await node.report(report(ids[1], 1, task_pb2.ATTEMPT_OUTCOME_SUCCEEDED))
        found = await node.ledger.FindOpenTasks(
            asked((ids[0], ids[1]), (ids[1], ids[2]), (ids[2], HIGHEST), (ids[0], ids[0]), (ID, ids[0]))
        )
        assert list(found.open) == [True, False, True, False, False]
        assert not (await node.ledger.FindOpenTasks(asked())).open


async def test_tasks_without_an_attempt_are_left_out_where_it_is_asked_for(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = [uuid.UUID((await node.create()).task_id).bytes for _ in range(2)]
        await node.report(report(ids[1], 1, task_pb2.ATTEMPT_OUTCOME_LOST))
        request = asked((ids[0], ids[1]), (ids[1], HIGHEST))
        assert list((await node.ledger.FindOpenTasks(request)).open) == [True, True]
        request.attempted_only = True
        assert list((await node.ledger.FindOpenTasks(request)).open) == [False, True]


async def test_tasks_that_ended_after_their_last_attempt_need_it_until_they_leave(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = [uuid.UUID((await node.create()).task_id) for _ in range(4)]
        late, done, unattempted, _ = ids
        lost = [report(task_id.bytes, 1, task_pb2.ATTEMPT_OUTCOME_LOST) for task_id in (late, done)]
        await node.report(*lost)
        await node.report(report(done.bytes, 2, task_pb2.ATTEMPT_OUTCOME_SUCCEEDED))
        for task_id in (late, unattempted):
            await node.tasks.CancelTask(CancelTaskRequest(task_id=str(task_id)))
            assert (await node.get(str(task_id))).state == task_pb2.TASK_STATE_CANCELLED

        async def needed(days: int = 7) -> list[bool]:
            request = asked(*pairwise(task_id.bytes for task_id in ids))
            request.attempted_only = True
            for item in request.ranges:
                item.retention_days = days
            return list((await node.ledger.FindOpenTasks(request)).open)

        assert await needed() == await needed(0) == [True, False, False]
        assert not any(await needed(14))
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await connection.execute("UPDATE finished_tasks SET leave_ms = 1")
        assert not any(await needed())


async def test_ends_of_attempts_that_a_restored_ledger_has_not_heard_of_count(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        ids = [uuid.UUID((await node.create()).task_id).bytes for _ in range(3)]
        outcomes = (
            task_pb2.ATTEMPT_OUTCOME_SUCCEEDED,
            task_pb2.ATTEMPT_OUTCOME_LOST,
            task_pb2.ATTEMPT_OUTCOME_SNOOZED,
        )
        reports = [report(task_id, 2, outcome) for task_id, outcome in zip(ids, outcomes, strict=True)]
        for _ in range(2):
            directives = await node.report(*reports)
            assert [item.kind for item in directives] == [
                pb.DIRECTIVE_KIND_DONE,
                pb.DIRECTIVE_KIND_RUN,
                pb.DIRECTIVE_KIND_RUN,
            ]
            assert [item.attempt for item in directives] == [0, 3, 3]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked((b"x", HIGHEST)), "ranges[0].first"),
        (asked((ID, HIGHEST), (ID, b"")), "ranges[1].end"),
        (asked((HIGHEST, ID)), "ranges[0].end"),
        (
            pb.FindOpenTasksRequest(ranges=[pb.IdRange(first=ID, end=HIGHEST, retention_days=2)]),
            "ranges[0].retention_days",
        ),
        (asked(*[(ID, HIGHEST)] * 1_001), "ranges"),
    ],
)
async def test_a_bad_range_names_its_field(
    database: str, request_: pb.FindOpenTasksRequest, field: str
) -> None:
    async with cluster(database) as system:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await system.nodes[0].ledger.FindOpenTasks(request_)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]
