"""Workers as they are listed."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic, time

from google.protobuf.timestamp_pb2 import Timestamp

from meshq.execution.sessions.polls import PollingWorker
from meshq.execution.sessions.session import Session, WorkerFacts
from meshq.v1 import worker_service_pb2 as pb


def session_worker(session: Session, instance_id: str) -> pb.Worker:
    """A worker with a session."""
    worker = _worker(session.facts, instance_id, session.connected_at, session.last_heard)
    worker.mode = pb.WORKER_MODE_SESSION
    worker.state = pb.WORKER_STATE_DRAINING if session.leaving else pb.WORKER_STATE_ACTIVE
    worker.session_id = session.id
    worker.leases = len(session.leases)
    return worker


def polling_worker(polling: PollingWorker, instance_id: str) -> pb.Worker:
    """A worker that polls."""
    worker = _worker(polling.facts, instance_id, polling.first_seen, polling.last_seen)
    worker.mode = pb.WORKER_MODE_POLL
    worker.state = pb.WORKER_STATE_ACTIVE
    worker.leases = len(polling.leases)
    return worker


def merged(workers: Iterable[pb.Worker]) -> list[pb.Worker]:
    """Each worker once, by id: the one that was heard last, where a worker has just moved."""
    latest: dict[tuple[str, str], pb.Worker] = {}
    for worker in workers:
        key = (worker.worker_id, worker.tenant)
        if key not in latest or _seen(latest[key]) < _seen(worker):
            latest[key] = worker
    return [latest[key] for key in sorted(latest)]


def _seen(worker: pb.Worker) -> tuple[bool, int]:
    return worker.mode == pb.WORKER_MODE_SESSION, worker.last_seen_time.ToNanoseconds()


def _worker(facts: WorkerFacts, instance_id: str, since: float, seen: float) -> pb.Worker:
    return pb.Worker(
        worker_id=facts.worker_id,
        tenant=facts.tenant,
        instance_id=instance_id,
        task_types=facts.task_types,
        queues=facts.queues,
        slots=facts.slots,
        labels=facts.labels,
        build_id=facts.build_id,
        user_agent=facts.user_agent,
        connect_time=_wall(since),
        last_seen_time=_wall(seen),
    )


def _wall(moment: float) -> Timestamp:
    message = Timestamp()
    message.FromMilliseconds(int((time() - monotonic() + moment) * 1000))
    return message
