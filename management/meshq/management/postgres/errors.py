"""PostgreSQL's errors as those of meshq."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from meshq.contract.errors import DeadlineExceeded, InternalError, MeshqError, Reason, Unavailable
from meshq.mesh.postgres.partitions import outrun

RETRY_DELAY: Final = 1.0

_BROKEN: Final = (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction)


def refuses_rows(error: psycopg.Error) -> bool:
    """Whether the rows are to blame, so that halving them finds the bad one."""
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError | errors.ProgramLimitExceeded)


def worth_retrying(error: Exception) -> bool:
    """Whether the same statement may succeed when it is tried again at once.

    A broken connection is worth it too: after a restart of the server each pooled connection fails once.
    """
    if isinstance(error, PoolTimeout | PoolClosed | TooManyRequests | errors.QueryCanceled):
        return False
    return isinstance(error, _BROKEN) or outrun(error)


def translated(error: Exception) -> MeshqError:
    """What a caller gets to hear."""
    if isinstance(error, errors.QueryCanceled):
        return DeadlineExceeded(
            "The ledger took too long to answer; narrow the filters, for example by time.",
            retry_delay=RETRY_DELAY,
        )
    if isinstance(error, (*_BROKEN, PoolClosed, TooManyRequests)):
        return Unavailable(
            "The ledger does not answer; retry with the same request_id.",
            Reason.LEDGER_UNAVAILABLE,
            retry_delay=RETRY_DELAY,
        )
    return InternalError("The ledger refused a statement; the log has the reason.")
