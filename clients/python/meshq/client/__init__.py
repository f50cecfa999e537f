"""The Python client of meshq: `Client` for asyncio, `SyncClient` for everything else.

```python
async with Client("localhost:8080") as client:
    task = await client.run("word_count", "word1 word2 word3")
    print(task.result)  # {'word_count': 3}
```
"""

from meshq.client.async_client import Client
from meshq.client.models import (
    UNSET,
    Created,
    Found,
    Instance,
    InstanceState,
    Page,
    Queue,
    QueueCounts,
    Ring,
    Service,
    Shard,
    ShardState,
    Task,
    TaskError,
    TaskEvent,
    TaskFailed,
    TaskFilter,
    TaskOptions,
    TaskOutput,
    TaskProgress,
    TaskSpec,
    TaskState,
    TaskView,
    Unset,
    Worker,
    WorkerMode,
    WorkerState,
)
from meshq.client.retries import RetryPolicy
from meshq.client.sync_client import SyncClient
from meshq.client.values import JsonValue

__all__ = [
    "UNSET",
    "Client",
    "Created",
    "Found",
    "Instance",
    "InstanceState",
    "JsonValue",
    "Page",
    "Queue",
    "QueueCounts",
    "RetryPolicy",
    "Ring",
    "Service",
    "Shard",
    "ShardState",
    "SyncClient",
    "Task",
    "TaskError",
    "TaskEvent",
    "TaskFailed",
    "TaskFilter",
    "TaskOptions",
    "TaskOutput",
    "TaskProgress",
    "TaskSpec",
    "TaskState",
    "TaskView",
    "Unset",
    "Worker",
    "WorkerMode",
    "WorkerState",
]
