"""The Python worker of meshq.

```python
worker = Worker("localhost:8080")

@worker.task("word_count")
def word_count(text: str) -> dict[str, int]:
    return {"word_count": len(text.split())}

worker.run()
```
"""

from meshq.client.leases import LeaseLost
from meshq.worker.completion import CancelRequest, Completer, SyncCompleter
from meshq.worker.context import TaskContext
from meshq.worker.errors import (
    Ending,
    FinishLater,
    InvalidInput,
    NoRetry,
    Retry,
    Snooze,
    TaskCancelled,
    TaskFailure,
)
from meshq.worker.outcomes import Data
from meshq.worker.registry import TaskRegistry
from meshq.worker.worker import Refused, Worker

__all__ = [
    "CancelRequest",
    "Completer",
    "Data",
    "Ending",
    "FinishLater",
    "InvalidInput",
    "LeaseLost",
    "NoRetry",
    "Refused",
    "Retry",
    "Snooze",
    "SyncCompleter",
    "TaskCancelled",
    "TaskContext",
    "TaskFailure",
    "TaskRegistry",
    "Worker",
]
