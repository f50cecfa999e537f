"""Sessions end to end: frames in, frames out, on real shards and a real database."""

from typing import Any


async def test_a_task_is_assigned_and_its_result_recorded_and_reported(
    cluster: Any, instance: Any, dispatcher: Any, workers: Any, wait_until: Any
) -> None:
    worker = await workers(instance).connect(credit=1)
    task_id = await dispatcher.one()
    (token,) = await worker.next_task()
    assert worker.assigned[token].task.data == b"in"
    assert worker.assigned[token].attempt == 1
    await worker.finish(token)
    await wait_until(lambda: worker.acks.get(token) == 1)
    await wait_until(lambda: cluster.ledger.of(task_id, 1))
