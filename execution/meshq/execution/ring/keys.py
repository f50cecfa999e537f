"""The names of what a shard holds. No other module makes a key.

Scripts build most keys themselves, because they learn ids and lanes as they go; they write `KEY.TASK` and the
like, for which `scripts.py` puts the names from here, so that there is one place for both languages.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Final

META: Final = "mq:meta"
"""Hash: epoch, ring, state, begun, run_id, replication_id, generation, leases (the counter of lease ids);
limited once a queue was configured (r and a version of the ring while no limit key is here that has its slot
elsewhere), weighted once a task had a weight of its own; slots and confirmed (versions of the ring of which
the shard knows its slots, and serves them all), arrived (when some came), changes (counts what unsettles)."""

TOMBSTONES: Final = "mq:tombstones:"
"""+ minute: hash id -> what became of it."""

_NAMES: Final = {
    "META": META,
    # + id: hash: attempt, state, lane, ready, score, extras; while leased lease, owner, leased, worker, ttl,
    # cancel, grace (when a cancellation is to be settled), deferred (if it is finished later), over
    "TASK": "mq:task:",
    "SPEC": "mq:spec:",  # + id: the encoded specification; empty where it is not known
    "LANE": "mq:lane:",  # + lane: sorted set id and attempt -> score
    "LANES": "mq:lanes:",  # + class: sorted set fairness key -> virtual time, only of lanes that hold tasks
    "CLOCKS": "mq:clocks",  # hash class -> virtual time of the last task taken
    "WEIGHTS": "mq:weights:",  # + class: hash fairness key -> weight, of those that are not 1
    "TYPES": "mq:types:",  # + tenant/queue: set of types that have ready tasks
    "DELAYED": "mq:delayed",  # sorted set id -> ready time
    "DELIVERIES": "mq:deliveries",  # sorted set id and lease -> deadline of what was not acknowledged
    "POLLED": "mq:polled",  # sorted set id -> deadline of polled leases
    "CLOSING": "mq:closing",  # sorted set id -> when somebody else is to settle a lease that is over
    # sorted set: s and id (to be leased by then); c, h or g, id and lease (to be closed, heard of, stopped)
    "DEADLINES": "mq:deadlines",
    "SESSIONS": "mq:sessions",  # sorted set session -> deadline
    "SESSION": "mq:session:",  # + session: set of ids leased to it
    "WORKERS": "mq:workers",  # hash tenant/worker -> "session instance_key"
    "SESSION_WORKERS": "mq:session-workers",  # hash session -> tenant/worker
    "QUEUE": "mq:queue:",  # + tenant/queue: hash ready, delayed, leased
    "TOTALS": "mq:totals",  # hash ready, delayed, leased
    # + tenant/queue: hash: the configuration; starved while a lease call found it full; since (counted here);
    # begun (has limits per key)
    "CONF": "mq:conf:",
    "RUNNING": "mq:running:",  # + tenant/queue: hash limit key -> leases
    "FOREIGN": "mq:foreign:",  # + tenant/queue: hash limit key -> leases on other shards, while there are any
    "SPREAD": "mq:spread",  # set of tenant/queue whose limits per key are counted by the shards of their keys
    "SERVED": "mq:served",  # a bit for each slot whose keys are served here
    "ARRIVED": "mq:arrived",  # a bit for each slot that has come here
    "MAP": "mq:map",  # the same of what is being told
    "PARKED": "mq:parked:",  # + length of key/limit key/lane: sorted set as a lane, of what waits for its key
    "PARKED_LANES": "mq:parked-lanes:",  # + tenant/queue/limit key: sorted set lane -> last looked at
    "PARKED_KEYS": "mq:parked-keys:",  # + tenant/queue: sorted set limit key -> when it was last looked at
    "TOKENS": "mq:tokens:",  # + tenant/queue/limit key (or nothing): "tokens time", until it is full
    # sorted set: S and tenant/queue, K and tenant/queue/limit key (tokens come); A and tenant/queue (all)
    "WAKES": "mq:wakes",
    "WAITING": "mq:waiting:",  # + tenant/queue: hash type -> instances that want a bell, apart by spaces
    "BELL": "mq:bell:",  # + instance: pub/sub channel
    "POLL": "mq:poll:",  # + tenant/worker/request id: hash id -> lease
    "TOMBSTONES": TOMBSTONES,
    "MOVER": "mq:mover",  # which instance moves tasks away, while it does
    "RECOVERED": "mq:recovered",  # set of instances that have adopted what they run
}


def bell(instance_id: str) -> str:
    """The channel on which a shard tells an instance something."""
    return _NAMES["BELL"] + instance_id


def task(task_id: bytes) -> bytes:
    """The hash of a task."""
    return _NAMES["TASK"].encode() + task_id


def poll(tenant: str, worker_id: str, request_id: str) -> str:
    """What a poll with this request id has leased."""
    return f"{_NAMES['POLL']}{tenant}/{worker_id}/{request_id}"


def queue_class(tenant: str, queue: str, task_type: str) -> str:
    """What a consumer asks for: the tasks of one type in one queue. Names hold no slash."""
    return f"{tenant}/{queue}/{task_type}"


@lru_cache(maxsize=256)
def by_queue(classes: tuple[str, ...]) -> tuple[str | int, ...]:
    """Classes in their order as scripts read them: queue, number of its types, its types, and so on."""
    packed: list[str | int] = []
    for queue, names in groupby((name.rpartition("/") for name in classes), key=itemgetter(0)):
        types = [task_type for *_, task_type in names]
        packed += [queue, len(types), *types]
    return tuple(packed)


def class_of(lane: str) -> str:
    """The class of a lane, which is the same and the fairness key behind it."""
    return lane.rsplit("/", lane.count("/") - 2)[0]


def lua_names() -> dict[str, str]:
    """What scripts call `KEY.<name>`."""
    return dict(_NAMES)
