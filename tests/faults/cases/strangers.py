"""Workers that answer twice, late, with garbage, for others or never; clients that vanish in mid-stream."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import grpc
import grpc.aio
from faults.history import Sent
from faults.link import HALF_OPEN, Link
from faults.strange import Strange, at_work, garbage
from faults.table import Fault, Scene, add
from faults.workload import PLAIN

from meshq.internal.v1.session_frames_pb2 import LeaseToken
from meshq.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from meshq.v1 import worker_service_pb2 as pb

_ACCEPTED = pb.RESULT_STATUS_ACCEPTED
_GREED = 100_000
_TWO = 2
_LEASE = 20.0
_FRAMES, _IN_A_FRAME, _VANISHING = 5, 20, 6
_SERIALS = itertools.count(10_000_000)
Tasks = dict[bytes, task_pb2.Task]


async def answer_twice(scene: Scene) -> None:
    """Each result is reported twice in a frame, and once more later; it counts once."""

    async def take(worker: Strange, tasks: Tasks) -> None:
        await worker.report(*tasks, *tasks)
        await worker.report(*worker.tokens)

    worker = Strange(scene, "says-it-twice", take)
    await at_work(scene, worker, seconds=scene.seconds(15.0, 4.0))
    assert worker.answers, "the worker got no tasks"
    for token, statuses in worker.answers.items():
        said = {status for status in statuses if status != pb.RESULT_STATUS_TRY_LATER}
        assert len(said) < _TWO or token in worker.lost, f"one result was answered {statuses}"


async def answer_late(scene: Scene) -> None:
    """Results come after their lease was lost, from a worker that had seemed to be dead."""

    async def take(_worker: Strange, _tasks: Tasks) -> None:
        """Do nothing now."""

    worker = Strange(scene, "too-late", take, credit=20)
    working = asyncio.create_task(worker.work())
    await _tokens_of(worker)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    # Longer than the lease: somebody else has these tasks by now.
    await asyncio.sleep(_LEASE)

    async def report(again: Strange, tasks: Tasks) -> None:
        await again.report(*worker.tokens, *tasks)

    late = Strange(scene, "too-late", report, credit=5, tokens=dict(worker.tokens))
    await at_work(scene, late, seconds=5.0)
    answers = [late.answers[token] for token in worker.tokens if token in late.answers]
    assert answers, "no late result was answered"
    assert not any(_ACCEPTED in statuses for statuses in answers), f"late results were answered {answers}"


async def answer_for_others(scene: Scene) -> None:
    """Results name leases that belong to others, or to nobody: changed tokens end nothing of anybody's."""

    async def take(worker: Strange, tasks: Tasks) -> None:
        forged = [_forged(token, scene) for token in tasks]
        worker.tokens |= {forgery: tasks[token] for forgery, token in zip(forged, tasks, strict=True)}
        await worker.send(received=pb.Received(lease_tokens=forged))
        await worker.send(
            heartbeat=pb.Heartbeat(progress=[pb.LeaseProgress(lease_token=one) for one in forged])
        )
        releases = [
            pb.TaskResult(lease_token=one, release=pb.Release(reason="none of mine")) for one in forged
        ]
        await worker.send(results=pb.Results(results=releases))
        await worker.report(*tasks)

    worker = Strange(scene, "names-others", take)
    await at_work(scene, worker, seconds=scene.seconds(15.0, 4.0))
    assert worker.answers, "the worker got no tasks"


async def talk_garbage(scene: Scene) -> None:
    """Frames make no sense; the session ends with an error, and what it held goes to others."""
    chance = scene.chance

    async def take(worker: Strange, tasks: Tasks) -> None:
        kind = chance.randrange(5)
        if kind == 0:
            await worker.send(received=pb.Received(lease_tokens=[garbage(chance)]))
        elif kind == 1:
            result = pb.TaskResult(lease_token=garbage(chance), success=pb.Success(data=b"x"))
            await worker.send(results=pb.Results(results=[result]))
        elif kind == 2:
            await worker.send(results=pb.Results(results=[pb.TaskResult(lease_token=next(iter(tasks)))]))
        elif kind == 3:
            await worker.send(hello=pb.Hello(protocol_version=9, worker_id="again"))
        else:
            await worker.send(output=pb.Output(outputs=[pb.LeaseOutput(lease_token=garbage(chance))]))

    workers = [Strange(scene, f"babbles-{number}", take, credit=20) for number in range(3)]
    await at_work(scene, *workers, seconds=scene.seconds(15.0, 4.0))
    assert all(worker.tokens for worker in workers), "a worker got no tasks"


async def never_acknowledge(scene: Scene) -> None:
    """A worker wants all tasks there are, acknowledges none and ends none."""

    async def take(_worker: Strange, _tasks: Tasks) -> None:
        """Do nothing."""

    worker = Strange(scene, "deaf", take, credit=_GREED, acknowledges=False)
    await at_work(scene, worker, seconds=scene.seconds(30.0, 12.0))
    assert worker.lost, "no delivery was taken back"


async def vanish(scene: Scene) -> None:
    """Clients go in mid-stream: some end their connection, of others nothing is heard any more."""
    link = Link("edge", scene.system.edge)
    link.open()
    try:
        for number in range(int(scene.seconds(4 * _VANISHING, _VANISHING))):
            target = scene.system.edge if number % 2 else link.address
            await _send_and_go(scene, target)
            if number % 2 == 0:
                link.impose(HALF_OPEN)
            await scene.accepted(10)
            link.heal()
    finally:
        await link.close()


async def _send_and_go(scene: Scene, target: str) -> None:
    """Create tasks and watch some, read no answers, and be gone."""
    channel = grpc.aio.insecure_channel(target)
    stub = task_service_pb2_grpc.TaskServiceStub(channel)
    watch = stub.WatchTasks(task_service_pb2.WatchTasksRequest())
    known = next(iter(scene.load.accepted.values()))
    run = stub.RunTask(task_service_pb2.RunTaskRequest(task_id=known))
    stream = stub.IngestTasks(_frames(scene))
    with suppress(grpc.RpcError, asyncio.InvalidStateError):
        await watch.read()
        await stream.read()
    for call in (watch, run, stream):
        call.cancel()
    await channel.close(None)


async def _frames(scene: Scene) -> AsyncIterator[task_service_pb2.IngestTasksRequest]:
    for _ in range(_FRAMES):
        yield task_service_pb2.IngestTasksRequest(tasks=_tasks(scene))


def _tasks(scene: Scene) -> Iterator[task_pb2.Task]:
    for serial in itertools.islice(_SERIALS, _IN_A_FRAME):
        scene.history.add(Sent(time.time(), serial, "plain"))
        task = task_pb2.Task(type="note", queue=PLAIN, max_attempts=50)
        task.payload.struct_value.fields["n"].number_value = serial
        yield task


async def _tokens_of(worker: Strange) -> None:
    while not worker.tokens:  # noqa: ASYNC110 - the worker waits for a server
        await asyncio.sleep(0.05)


def _forged(token: bytes, scene: Scene) -> bytes:
    """A token for the same task with a lease that nobody has."""
    lease = LeaseToken.FromString(token)
    lease.lease += scene.chance.randrange(1_000_000, 2_000_000)
    return lease.SerializeToString()


add(Fault("worker-answers-twice", answer_twice))
add(Fault("worker-answers-late", answer_late, soak=False))
add(Fault("worker-answers-for-others", answer_for_others))
add(Fault("worker-talks-garbage", talk_garbage, often=True))
add(Fault("worker-never-acknowledges", never_acknowledge))
add(Fault("clients-vanish", vanish))
