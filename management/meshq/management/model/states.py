"""The states of a task and the moves between them: one table that everything else asks.

```text
WAITING -> SCHEDULED -> PENDING -> RUNNING -> SUCCEEDED | FAILED | CANCELLED | EXPIRED
                           ^          |
                           +-RETRYING-+          open -> CANCELLING -> CANCELLED, or the outcome
```

The ledger learns of RUNNING late or never, so a dispatched task goes from any of its open states to
its end. Within one attempt states come in the order of their rank; a watcher drops what is not newer.
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.IntEnum):
    """The numbers of `meshq.v1.TaskState`, which are also those in the database."""

    WAITING = 1
    SCHEDULED = 2
    PENDING = 3
    RUNNING = 4
    RETRYING = 5
    CANCELLING = 6
    SUCCEEDED = 7
    FAILED = 8
    CANCELLED = 9
    EXPIRED = 10


_ENDS: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
_RETRY: Final = frozenset({State.RETRYING, State.PENDING, State.SCHEDULED})

MOVES: Final[dict[State, frozenset[State]]] = {
    State.WAITING: frozenset({State.SCHEDULED, State.PENDING, State.CANCELLING}),
    State.SCHEDULED: frozenset({State.PENDING, State.RUNNING, State.CANCELLING}) | _RETRY | _ENDS,
    State.PENDING: frozenset({State.RUNNING, State.CANCELLING}) | _RETRY | _ENDS,
    State.RUNNING: frozenset({State.CANCELLING}) | _RETRY | _ENDS,
    State.RETRYING: frozenset({State.PENDING, State.RUNNING, State.CANCELLING}) | _RETRY | _ENDS,
    State.CANCELLING: _ENDS,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
}
"""Where a task may go from each state. A move to RETRYING, or back to PENDING or SCHEDULED, begins an
attempt."""

TERMINAL: Final = frozenset(state for state, moves in MOVES.items() if not moves)
OPEN: Final = frozenset(State) - TERMINAL
STARTABLE: Final = frozenset(state for state, moves in MOVES.items() if State.RUNNING in moves)
"""States in which the word that an attempt has started changes anything."""

RANK: Final[dict[State, int]] = {
    State.WAITING: 0,
    State.SCHEDULED: 1,
    State.RETRYING: 2,
    State.PENDING: 3,
    State.RUNNING: 4,
    State.CANCELLING: 5,
    **dict.fromkeys(TERMINAL, 6),
}
"""The order of states within one attempt."""


def allowed(before: State, after: State) -> bool:
    """Whether a task may go from one state to the other."""
    return after in MOVES[before]


def newer(attempt: int, state: int, than_attempt: int, than_state: int) -> bool:
    """Whether the first (attempt, state) came after the second."""
    return (attempt, RANK[State(state)]) > (than_attempt, RANK[State(than_state)])
