"""How tasks with unique and ordering keys are accepted: several statements, one transaction.

Locks are taken in one order by everybody: claims, unique keys, ordering keys, tasks, each sorted. What
is decided by other tasks is read behind the locks, by statements of their own: what others have committed
before they let go of a lock is seen then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString

from meshq.management.ledger import Inserted
from meshq.management.model.chains import ChainKey
from meshq.management.model.claims import Answer, Claim, Submission, corrected_answers
from meshq.management.model.reports import Wish
from meshq.management.model.retention import leaving
from meshq.management.model.states import State
from meshq.management.model.task import NewTask, TaskId, TaskRow
from meshq.management.model.uniqueness import Holder, KeyName, Placing, in_window, place
from meshq.management.postgres.columns import Row, chain_columns, claim_columns, special_columns, task_columns
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.inserts import new_queues, without_known
from meshq.management.postgres.moves import wish_columns
from meshq.management.postgres.sql import statement
from meshq.mesh.postgres.arrays import bigints, smallints, uuids

_CLAIM: Final = statement("claim") + "SELECT won.claim FROM won"  # noqa: S608
_CREATE: Final = (
    "WITH won AS (SELECT ''::text AS claim WHERE false)" + statement("create_special") + statement("created")
)
_TAKE: Final = statement("take_keys")
_HAND_OVER: Final = statement("hand_over_keys")
_OPEN: Final = "SELECT uuid_send(id) FROM open_tasks WHERE id = ANY (%(ids)s::uuid[])"
_ENDED: Final = """
SELECT uuid_send(id) FROM finished_tasks
WHERE id = ANY (%(ids)s::uuid[]) AND leave_ms >= %(first)s::bigint AND leave_ms < %(behind)s::bigint
"""
_LENGTHEN: Final = statement("lengthen_chains")
_BUSY: Final = statement("busy_chains")
_CANCEL: Final = statement("cancel")
_CORRECT: Final = "UPDATE claims SET task_ids = %s WHERE claim = %s"


class Keyed:
    """Stores new tasks that depend on others."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_keyed(self, submissions: Sequence[Submission], now_ms: int) -> Inserted:
        """See `Ledger.insert_keyed`."""

        async def work(connection: LedgerConnection, again: bool) -> Inserted:
            async with connection.transaction():
                return await Insertion(connection, now_ms, again=again).run(submissions)

        return await self._database.write(work)


class Insertion:
    """One group within its transaction.

    Args:
        connection: Within a transaction.
        now_ms: The time.
        again: Whether an earlier try may have been committed.
    """

    def __init__(self, connection: LedgerConnection, now_ms: int, *, again: bool) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._again = again

    async def run(self, submissions: Sequence[Submission]) -> Inserted:
        """Store what can be stored."""
        """Store what can be stored."""
        won = await self._claim([item.claim for item in submissions if item.claim])
        rows = [
            (task, "")
            for item in submissions
            if item.claim is None or item.claim.name in won
            for task in item.tasks
        ]
        if self._again:
            rows = await without_known(self._connection, rows)
        rows.sort(key=lambda row: row[0].task_id)
        placing = await self._place([task for task, _ in rows])
        stored = [row for row in rows if row[0].task_id not in placing.others]
        places, waiting = await self._chain([task for task, _ in stored])
        await self._store([_placed(row, waiting) for row in stored], places)
        await self._hand_over(placing)
        replaced = await self._cancel(placing.replaced)
        await self._correct([item.claim for item in submissions if item.claim], won, placing.others)
        return Inserted(won, self._again, placing.others, frozenset(waiting), replaced)

    async def _claim(self, claims: Sequence[Claim]) -> frozenset[str]:
        if not claims:
            return frozenset()
        rows = await self._fetch(_CLAIM, {"now": self._now_ms, **claim_columns(claims)})
        return frozenset(name for (name,) in rows)

    async def _place(self, tasks: Sequence[NewTask]) -> Placing:
        """Decide which tasks are stored, by the unique keys they want."""
        wanted: dict[KeyName, Holder] = {}
        for task in tasks:
            if task.special and (unique := task.special.unique):
                name = KeyName(task.tenant, task.queue, unique.key)
                wanted.setdefault(name, Holder(task.task_id, unique.scope, unique.until_ms))
        if not wanted:
            return Placing({}, {}, {})
        taken = await self._fetch(_TAKE, _key_columns(wanted))
        holders = {KeyName(*row[:3]): Holder(*row[3:]) for row in taken}
        own = {task.task_id for task in tasks}
        others = [holder for holder in holders.values() if holder.task_id not in own]
        open_ids = await self._which(_OPEN, [holder.task_id for holder in others])
        # Asked afterwards: what ends in between is found.
        windowed = [
            holder.task_id
            for holder in others
            if holder.task_id not in open_ids and in_window(holder, self._now_ms)
        ]
        bounds = leaving(windowed, self._now_ms)._asdict() if windowed else {}
        ended_ids = await self._which(_ENDED, windowed, **bounds)
        return place(tasks, holders, open_ids, ended_ids, self._now_ms)

    async def _which(self, query: LiteralString, task_ids: Sequence[TaskId], **bounds: int) -> set[TaskId]:
        """Those of some tasks that the query finds."""
        if not task_ids:
            return set()
        return {task_id for (task_id,) in await self._fetch(query, {"ids": uuids(task_ids), **bounds})}

    async def _chain(self, tasks: Sequence[NewTask]) -> tuple[dict[TaskId, int], set[TaskId]]:
        """Give tasks their places in the chains of their ordering keys; returns those and who has to wait."""
        chains: dict[ChainKey, list[TaskId]] = {}
        for task in tasks:
            if task.special and task.special.ordering_key:
                key = ChainKey(task.tenant, task.queue, task.special.ordering_key)
                chains.setdefault(key, []).append(task.task_id)
        if not chains:
            return {}, set()
        keys = sorted(chains)
        columns = chain_columns(keys)
        columns["places"] = bigints([len(chains[key]) for key in keys])
        last = {ChainKey(*row[:3]): row[3] for row in await self._fetch(_LENGTHEN, columns)}
        del columns["places"]
        busy = {ChainKey(*row) for row in await self._fetch(_BUSY, columns)}
        places: dict[TaskId, int] = {}
        waiting: set[TaskId] = set()
        for key, task_ids in chains.items():
            first = last[key] - len(task_ids) + 1
            places.update((task_id, first + index) for index, task_id in enumerate(task_ids))
            waiting.update(task_ids if key in busy else task_ids[1:])
        return places, waiting

    async def _store(self, rows: Sequence[Row], places: Mapping[TaskId, int]) -> None:
        if rows:
            queues = new_queues({(task.tenant, task.queue) for task, _ in rows})
            fixed = {"now": self._now_ms, "slot": self._connection.slot}
            columns = {**fixed, **task_columns(rows), **special_columns(rows, places), **queues}
            await self._fetch(_CREATE, columns)

    async def _hand_over(self, placing: Placing) -> None:
        if placing.handed_over:
            await self._connection.execute(_HAND_OVER, _key_columns(placing.handed_over), prepare=True)

    async def _cancel(self, replaced: Mapping[TaskId, str]) -> list[tuple[TaskRow, int]]:
        if not replaced:
            return []
        wishes = [Wish(task_id, reason) for task_id, reason in replaced.items()]
        columns = wish_columns(wishes, self._now_ms)
        return [(TaskRow(*row[1:]), row[0]) for row in await self._fetch(_CANCEL, columns)]

    async def _correct(
        self, claims: Sequence[Claim], won: frozenset[str], others: Mapping[TaskId, Answer]
    ) -> None:
        """Have the claims keep what is really answered."""
        for claim in claims if others else ():
            answers = corrected_answers(claim, others)
            if claim.name in won and answers != claim.answers:
                await self._connection.execute(_CORRECT, [answers, claim.name], prepare=True)

    async def _fetch(self, query: Any, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(query, parameters, prepare=True, binary=True)
        return await cursor.fetchall()


def _placed(row: Row, waiting: set[TaskId]) -> Row:
    task, claim = row
    return (task._replace(state=State.WAITING), claim) if task.task_id in waiting else row


def _key_columns(holders: Mapping[KeyName, Holder]) -> dict[str, Any]:
    names = sorted(holders)
    return {
        **chain_columns(names),
        "ids": uuids([holders[name].task_id for name in names]),
        "scopes": smallints([holders[name].scope for name in names]),
        "until": bigints([holders[name].until_ms or 0 for name in names]),
    }
