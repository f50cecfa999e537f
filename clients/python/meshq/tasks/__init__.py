"""The built-in task types, for trying out and for examples: `python -m meshq.worker --tasks meshq.tasks`.

| Type | Input | Result |
|---|---|---|
| `word_count` | a text, or `{"text"}` | `{"word_count"}` |
| `text_summarization` | a text, or `{"text", "sentences"}` | `{"summary", "sentences", "total_sentences"}` |
| `calculate_statistics` | numbers, or `{"numbers"}` | `{"count", "mean", "median", "stdev", "min", "max"}` |
| `matrix_multiply` | `{"a", "b"}` as lists of rows | `{"product", "rows", "columns"}` |
| `simulate_backup` | `{"files", "file_bytes", "steps", "seconds"}`, all optional | the same |
| `sleep` | seconds, or `{"seconds"}` | `{"slept_seconds"}` |
| `fail` | `{"times", "error_type", "retry_delay", "non_retryable"}`, all optional | `{"attempt"}` |
| `steps` | `{"steps", "seconds", "fail_after"}`, all optional | `{"steps", "resumed_after", "attempt"}` |
| `snooze_once` | seconds, or `{"seconds"}` | `{"snoozed_seconds", "attempt"}` |
| `finish_later` | seconds, or `{"timeout"}` | whatever it is completed with |
"""

from meshq.tasks.lifecycle import fail, finish_later, snooze_once, steps
from meshq.tasks.numeric import calculate_statistics, matrix_multiply
from meshq.tasks.pastime import simulate_backup, sleep
from meshq.tasks.text import text_summarization, word_count
from meshq.worker import TaskRegistry

registry = TaskRegistry()
registry.add("word_count", word_count)
registry.add("text_summarization", text_summarization)
registry.add("calculate_statistics", calculate_statistics)
registry.add("matrix_multiply", matrix_multiply, processes=True)
registry.add("simulate_backup", simulate_backup)
registry.add("sleep", sleep)
registry.add("fail", fail)
registry.add("steps", steps)
registry.add("snooze_once", snooze_once)
registry.add("finish_later", finish_later)

__all__ = [
    "calculate_statistics",
    "fail",
    "finish_later",
    "matrix_multiply",
    "registry",
    "simulate_backup",
    "sleep",
    "snooze_once",
    "steps",
    "text_summarization",
    "word_count",
]
