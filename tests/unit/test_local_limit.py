"""The limit scenario plays what the components themselves make, and reads what servers count."""

from __future__ import annotations

import time

import pytest

from meshq.contract.ids import ID_BYTES
from meshq.execution.postgres.sql import statement as attempts_statement
from meshq.execution.ring import scripts
from meshq.execution.ring.hashring import Ring, RingShard, key_of_id
from meshq.local.bench.limit.calls import FrameCalls, calls_of
from meshq.local.bench.limit.costs import Use, command_uses, statement_name
from meshq.local.bench.limit.rows import EPOCH, make_frames
from meshq.management.postgres.sql import statement

RING = Ring(1, [RingShard(name, "") for name in ("a", "b", "c")])
SIZE = 50
NOW_MS = int(time.time() * 1_000)


async def frames(count: int = 2) -> list[FrameCalls]:
    return [await calls_of(frame) for frame in make_frames(count, RING, NOW_MS, SIZE)]


async def test_the_statements_are_those_of_the_components() -> None:
    (frame,) = await frames(1)
    assert frame.create.query == statement("claim") + statement("create") + statement("created")
    assert frame.finish.query == statement("finish") + statement("finished_quietly")
    assert frame.record.query == attempts_statement("insert_attempts")


async def test_the_calls_are_those_of_the_scripts() -> None:
    (frame,) = await frames(1)
    for part in frame.parts.values():
        called = [part.enqueue, part.lease, part.received, part.apply]
        expected = [scripts.ENQUEUE, scripts.LEASE, scripts.RECEIVED, scripts.APPLY]
        assert [script.sha in call for call, script in zip(called, expected, strict=True)] == [True] * 4


async def test_every_task_goes_to_its_shard_and_on_under_the_lease_that_it_gets() -> None:
    leased: dict[str, list[bytes]] = {}
    for frame in await frames(3):
        assert frame.tasks == SIZE
        assert sum(len(part.leased) for part in frame.parts.values()) == SIZE
        for name, part in frame.parts.items():
            first = len(leased.setdefault(name, []))
            for number, task_id in enumerate(part.leased, first + 1):
                assert RING.owner(key_of_id(task_id)) == name
                assert (
                    b"%b\r\n$%d\r\n%d:%d\r\n" % (task_id, len(f"{EPOCH}:{number}"), EPOCH, number)
                    in part.received
                )
            leased[name] += part.leased
    for ids in leased.values():
        assert ids == sorted(ids), "a shard leases tasks of the same time by their ids"
    assert all(len(task_id) == ID_BYTES for ids in leased.values() for task_id in ids)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("-- Claims FROM others.\nWITH won AS (\n  INSERT INTO claims (claim) SELECT", "insert into claims"),
        ("WITH moved AS ( DELETE FROM open_tasks AS o USING", "delete from open_tasks"),
        ("SELECT x FROM queues WHERE a", "from queues"),
        ("COMMIT", "COMMIT"),
    ],
)
def test_statements_are_called_by_what_they_do_first(query: str, name: str) -> None:
    assert statement_name(query) == name


def test_what_commands_took_is_read() -> None:
    lines = [
        "# Commandstats",
        "cmdstat_hset:calls=5,usec=20,usec_per_call=4",
        "cmdstat_config|set:calls=1,usec=9",
    ]
    assert dict(command_uses("\r\n".join(lines))) == {"hset": Use(5, 20.0), "config|set": Use(1, 9.0)}
    assert Use(1, 2.0) + Use(3, 4.0) == Use(4, 6.0)
