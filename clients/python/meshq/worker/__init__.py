"""The Python worker of meshq.

```python
worker = Worker("localhost:8080")

@worker.task("word_count")
def word_count(text: str) -> dict[str, int]:
    return {"word_count": len(text.split())}

worker.run()
```
"""

from meshq.worker.context import TaskContext
from meshq.worker.errors import InvalidInput, TaskCancelled, TaskFailure
from meshq.worker.outcomes import Data
from meshq.worker.registry import TaskRegistry
from meshq.worker.worker import Refused, Worker

__all__ = [
    "Data",
    "InvalidInput",
    "Refused",
    "TaskCancelled",
    "TaskContext",
    "TaskFailure",
    "TaskRegistry",
    "Worker",
]
