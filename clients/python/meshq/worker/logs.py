"""Log lines of a worker that runs as a process of its own: one JSON object a line, in ECS names."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any, Final

_PLAIN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as JSON; what was given as `extra` stands under `meshq`."""

    def __init__(self, worker_id: str) -> None:
        super().__init__()
        self._worker_id = worker_id

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "@timestamp": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(
                timespec="milliseconds"
            ),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "log.logger": record.name,
            "service.name": "meshq.worker",
            "service.node.name": self._worker_id,
        }
        extra = extra_of(record)
        if extra:
            line["meshq"] = extra
        if record.exc_info:
            line["error.stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """A record for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = dt.datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = " ".join(f"{key}={value}" for key, value in extra_of(record).items())
        line = f"{time} {record.levelname.lower():7} {record.getMessage()} {extra}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`."""
    return {key: value for key, value in record.__dict__.items() if key not in _PLAIN}


def configure(level: str, style: str, worker_id: str) -> None:
    """Send the records of this process to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json` or `console`.
        worker_id: Named in each line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter() if style == "console" else JsonFormatter(worker_id))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
