"""Many tasks run over one stream, while what the stream goes through is killed."""

import os
import signal

from meshq.client import Client, TaskSpec
from meshq.local.system import System

TASKS = 20_000
KILLED = {2_000: "management-1", 6_000: "management-2", 10_000: "execution-1", 14_000: "gateway"}
"""After how many results what is killed; one of both instances serves the stream."""


async def test_every_task_comes_back_once_whatever_is_killed() -> None:
    specs = (TaskSpec(type="word_count", payload="word " * (number % 5)) for number in range(TASKS))
    back: dict[int, str] = {}
    async with System(port=0, ephemeral=True) as system, Client(system.edge, timeout=60) as client:
        async for ran in client.run_many(specs):
            assert ran.task is not None, ran.error
            assert ran.task.result == {"word_count": ran.index % 5}
            assert ran.index not in back
            back[ran.index] = ran.task.task_id
            if name := KILLED.get(len(back)):
                pid = system.processes[name].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
        assert len(set(back.values())) == len(back) == TASKS
        assert (await client.count()).count == TASKS
