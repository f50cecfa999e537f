"""Every limit of the public interface, in one place. `docs/limits.md` explains them."""

from __future__ import annotations

import re
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_MESSAGE_BYTES: Final = 32 * MIB
"""What a channel or server takes in one message. Above every limit below, so that a request that is
too large is refused by name and not by the transport."""

MAX_PAYLOAD_BYTES: Final = 1 * MIB
"""A task's encoded input, and likewise a result."""

MAX_FRAME_ITEMS: Final = 1_000
"""Items in a batch, a frame or an internal call."""

MAX_FRAME_BYTES: Final = 8 * MIB
"""Encoded size of a batch or frame of tasks or results."""

SOFT_FRAME_BYTES: Final = 1 * MIB
"""Where a sender closes a frame, holding at least one item."""

MAX_NAME_LENGTH: Final = 128
"""Queues, task types, tenants and worker ids."""

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
NAME_RULE: Final = "must be 1 to 128 characters of A-Z a-z 0-9 . _ -, beginning with a letter or digit"

REQUEST_ID_PATTERN: Final = re.compile(r"[!-~]{1,128}")
REQUEST_ID_RULE: Final = "must be 1 to 128 visible ASCII characters"
REQUEST_ID_TTL_SECONDS: Final = 24 * 3600

MAX_CONTENT_TYPE_LENGTH: Final = 128
MAX_HEADERS: Final = 32
MAX_HEADER_KEY_LENGTH: Final = 64
MAX_HEADER_VALUE_LENGTH: Final = 1_024

MAX_ATTEMPTS: Final = 100
DEFAULT_MAX_ATTEMPTS: Final = 3

MAX_PRIORITY: Final = 9
MAX_TASK_LABELS: Final = 16
TASK_LABEL_KEY_PATTERN: Final = re.compile(r"[A-Za-z0-9._/-]{1,64}")
TASK_LABEL_KEY_RULE: Final = "must be 1 to 64 characters of A-Z a-z 0-9 . _ / -"
MAX_TASK_LABEL_VALUE_LENGTH: Final = 128
MAX_KEY_LENGTH: Final = 128
"""fairness_key, limit_key and ordering_key."""
MAX_UNIQUE_KEY_LENGTH: Final = 256
MIN_FAIRNESS_WEIGHT: Final = 0.01
MAX_FAIRNESS_WEIGHT: Final = 100.0
MAX_RATE_UNITS: Final = 1_000

MAX_START_SECONDS: Final = 10 * 366 * 86_400.0
"""How far ahead a task may be scheduled, and the longest timeouts of a whole task."""
MAX_ATTEMPT_SECONDS: Final = 30 * 86_400.0
"""start_to_close_timeout, FinishLater.timeout, Failure.retry_delay, RetryPolicy.max_delay, unique_window."""
MIN_TIMEOUT_SECONDS: Final = 0.001
MIN_HEARTBEAT_TIMEOUT_SECONDS: Final = 0.1
MAX_HEARTBEAT_TIMEOUT_SECONDS: Final = 86_400.0
MIN_UNIQUE_WINDOW_SECONDS: Final = 1.0
MIN_FINISH_LATER_SECONDS: Final = 1.0
MAX_SNOOZE_SECONDS: Final = 365 * 86_400.0

DEFAULT_RETRY_INITIAL_SECONDS: Final = 1.0
MAX_RETRY_INITIAL_SECONDS: Final = 86_400.0
DEFAULT_RETRY_MULTIPLIER: Final = 2.0
MAX_RETRY_MULTIPLIER: Final = 100.0
DEFAULT_RETRY_MAX_SECONDS: Final = 600.0
DEFAULT_RETRY_JITTER: Final = 0.1
MAX_NON_RETRYABLE_ERRORS: Final = 32

MAX_CHECKPOINT_BYTES: Final = 64 * KIB
CHECKPOINT_INTERVAL_SECONDS: Final = 10.0
"""A task's checkpoint is stored at most once in this time, and when its attempt ends at its worker."""

RETENTION_DAYS: Final = (1, 3, 7, 14, 30, 90, 180, 365)
DEFAULT_RETENTION_DAYS: Final = 7
DEFAULT_POISON_LIMIT: Final = 5
MAX_POISON_LIMIT: Final = 100
MAX_QUEUE_OPEN_TASKS: Final = 1_000_000_000
MAX_TYPE_DEFAULTS: Final = 64
MAX_QUEUE_SETTINGS_BYTES: Final = 64 * KIB
"""All settings of a queue together, encoded."""
MAX_RUNNING: Final = 1_000_000
MAX_RATE: Final = 1_000_000
"""Units per period, and the burst."""
MIN_RATE_PERIOD_SECONDS: Final = 0.01
MAX_RATE_PERIOD_SECONDS: Final = 30 * 86_400.0
MAX_ACTOR_LENGTH: Final = 128
MAX_QUEUE_WEIGHT: Final = 1_000

MAX_RUN_TASKS: Final = 10_000
"""Open tasks of one stream of RunTasks, beyond which it is not read."""

MAX_COUNT: Final = 1_000_000
"""What CountTasks counts to."""
MIN_REDRIVE_RATE: Final = 0.001
MAX_REDRIVE_RATE: Final = 100_000.0
MAX_REDRIVE_TASKS: Final = 1_000_000
MAX_WATCHED_QUEUES: Final = 100
MIN_WATCH_INTERVAL_SECONDS: Final = 0.5
MAX_WATCH_INTERVAL_SECONDS: Final = 60.0
DEFAULT_WATCH_INTERVAL_SECONDS: Final = 2.0
MAX_LISTED_ATTEMPTS: Final = 1_000
MAX_RESUME_SECONDS: Final = 600.0
MAX_RESUMED_TASKS: Final = 10_000
"""How far back a resume_token goes, and over how many tasks that have changed since."""

MAX_PAGE_SIZE: Final = 1_000
DEFAULT_TASK_PAGE_SIZE: Final = 50
DEFAULT_PAGE_SIZE: Final = 100

MAX_REASON_LENGTH: Final = 1_024
MAX_ERROR_TYPE_LENGTH: Final = 256
MAX_ERROR_MESSAGE_LENGTH: Final = 4_096
MAX_LEDGER_MESSAGE_LENGTH: Final = 1_024
MAX_TRACEBACK_LENGTH: Final = 64 * KIB
MAX_PROGRESS_DETAIL_BYTES: Final = 16 * KIB
MAX_OUTPUT_CHUNK_BYTES: Final = 64 * KIB
MAX_OUTPUT_STREAM_LENGTH: Final = 64

MAX_WORKER_TYPES: Final = 256
MAX_WORKER_QUEUES: Final = 256
MAX_WORKER_SLOTS: Final = 100_000
MAX_LABELS: Final = 32
MAX_LABEL_KEY_LENGTH: Final = 64
MAX_LABEL_VALUE_LENGTH: Final = 256

DEFAULT_RUN_WAIT_SECONDS: Final = 30.0
MAX_RUN_WAIT_SECONDS: Final = 600.0
DEFAULT_POLL_WAIT_SECONDS: Final = 20.0
MAX_POLL_WAIT_SECONDS: Final = 60.0
DEFAULT_POLL_LEASE_SECONDS: Final = 30.0
MIN_POLL_LEASE_SECONDS: Final = 1.0
MAX_POLL_LEASE_SECONDS: Final = 12 * 3600.0

STREAM_KEEPALIVE_SECONDS: Final = 20.0
"""How long a stream is silent at most; proxies close silent streams."""

DEFAULT_TENANT: Final = "default"
DEFAULT_QUEUE: Final = "default"

MAX_SHARD_WEIGHT: Final = 100
"""A shard's part of the ring, relative to the others."""
