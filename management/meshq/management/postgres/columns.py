"""New tasks as the columns that statements take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from meshq.management.model.claims import Claim
from meshq.management.model.task import NO_ID, NewTask, Special, TaskId
from meshq.mesh.postgres.arrays import bigints, byteas, smallints, texts, uuids

Row = tuple[NewTask, str]
"""A task with the name of its claim, or an empty one."""

_PLAIN: Final = Special()
_ONCE: Final = Special(announce_start=True)


def claim_columns(claims: Sequence[Claim]) -> dict[str, Any]:
    """Claims in the order of their names, so that no two groups take the same locks in different order."""
    claims = sorted(claims)
    return {
        "claims": texts([claim.name for claim in claims]),
        "fingerprints": bigints([claim.fingerprint for claim in claims]),
        "claim_ids": byteas([claim.answers for claim in claims]),
    }


def task_columns(rows: Sequence[Row]) -> dict[str, Any]:
    """Tasks in the order of their ids, as they are locked in that order."""
    rows = sorted(rows, key=_by_id)
    columns = list(zip(*(task for task, _ in rows), strict=True)) or [()] * len(NewTask._fields)
    ids, tenants, names, types, states, max_attempts, ready, specs, retention_days, _ = columns
    return {
        "ids": uuids(ids),
        "tenants": texts(tenants),
        "queues": texts(names),
        "types": texts(types),
        "states": smallints(states),
        "max_attempts": smallints(max_attempts),
        "ready": bigints(ready),
        "specs": byteas(specs),
        "retention_days": smallints(retention_days),
        "row_claims": texts([claim for _, claim in rows]),
    }


def special_columns(rows: Sequence[Row], places: Mapping[TaskId, int]) -> dict[str, Any]:
    """What tasks have beyond plain ones, in the order of their ids.

    Args:
        rows: The tasks.
        places: The places in the chains of their ordering keys.
    """
    tasks = [task for task, _ in sorted(rows, key=_by_id)]
    all_of = [task.special or (_ONCE if task.max_attempts == 1 else _PLAIN) for task in tasks]
    columns = zip(*all_of, strict=True)
    traits, priorities, fairness, announced, start_by, close_by, ordering, unique, labels, redriven = columns
    return {
        "announced": smallints(announced),
        "priorities": smallints(priorities),
        "fairness_keys": texts(fairness),
        "start_by": bigints([time_ms or 0 for time_ms in start_by]),
        "close_by": bigints([time_ms or 0 for time_ms in close_by]),
        "ordering_keys": texts([key or "" for key in ordering]),
        "order_seqs": bigints([places.get(task.task_id, 0) for task in tasks]),
        "unique_keys": texts([key.key if key else "" for key in unique]),
        "labels": texts([_array(names) if names else "" for names in labels]),
        "redriven_from": uuids([task_id or NO_ID for task_id in redriven]),
        "traits": byteas(traits),
    }


def chain_columns(keys: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    """Keys within queues, which are sorted where they are locked."""
    tenants, queues, names = zip(*keys, strict=True)
    return {"tenants": texts(tenants), "queues": texts(queues), "keys": texts(names)}


_by_id = itemgetter(0)


def _array(values: Sequence[str]) -> str:
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"
