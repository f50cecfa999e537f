"""PostgreSQL: restarted, without connections, unreachable, out of disk, and lost to its standby."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest
from faults import standby
from faults.cases.network import WIRED, Break
from faults.link import HALF_OPEN
from faults.stage import Setup
from faults.table import Fault, Scene, add

from meshq.local.plan import Kind, ProcessPlan, SystemPlan
from meshq.local.ports import free_port
from meshq.local.servers import Postgres
from meshq.local.system import System

POSTGRES, SECOND = "postgres", "postgres-2"
DISK_BYTES = 400 << 20
_CHUNK = bytes(1 << 20)


async def restart(scene: Scene) -> None:
    """As an operator would."""
    await scene.system.restart(POSTGRES)


async def end_connections(scene: Scene) -> None:
    """Everybody is sent away, again and again."""
    url = scene.setup.database(scene.system, "management")
    end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    for _ in range(int(scene.seconds(20, 5))):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(f"{end} AND backend_type = 'client backend'".encode())
        await asyncio.sleep(0.5)


# -- a full disk -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmallDisk(Setup):
    """A system whose PostgreSQL has a disk of its own, of which all can be used up.

    Attributes:
        disks: Where it is, while the system runs.
    """

    disks: list[Path] = field(default_factory=list, compare=False)

    def shape(self, plan: SystemPlan) -> SystemPlan:
        """Put the data on that disk."""
        return replace(plan, processes=tuple(self._moved(one) for one in plan.processes))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[System]:
        """The system, with the disk for as long as it runs."""
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("a disk of a few megabytes is mounted by root on Linux only")
        try:
            async with super().open() as system:
                yield system
        finally:
            while self.disks:
                _unmount(self.disks.pop())

    def _moved(self, process: ProcessPlan) -> ProcessPlan:
        if process.kind is not Kind.POSTGRES:
            return process
        assert isinstance(process.server, Postgres)
        disk = process.server.data.with_name("disk")
        _mount(disk)
        self.disks.append(disk)
        server = Postgres(disk / POSTGRES, process.port, databases=process.server.databases)
        return replace(process, server=server, command=tuple(server.command()))


def _mount(disk: Path) -> None:
    disk.mkdir()
    options = f"size={DISK_BYTES},mode=711"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)


def _unmount(disk: Path) -> None:
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    # What was mounted is what the system could not remove with its folder.
    shutil.rmtree(disk.parent, ignore_errors=True)


SMALL_DISK = SmallDisk()


async def fill_disk(scene: Scene) -> None:
    """Nothing can be written any more; the server ends itself when its log cannot grow."""
    ballast = SMALL_DISK.disks[0] / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for _ in range(int(scene.seconds(20, 6) / 0.1)):
                _fill(file.fileno())
                await asyncio.sleep(0.1)
    finally:
        ballast.unlink()
    await scene.system.wait_ready(POSTGRES)


def _fill(file: int) -> None:
    """Take whatever is free, also what the server has given back meanwhile."""
    size = len(_CHUNK)
    while size:
        try:
            os.write(file, _CHUNK[:size])
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            size //= 2


# -- a failover --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replicated(Setup):
    """A system with a synchronous standby; everybody knows both servers."""

    def shape(self, plan: SystemPlan) -> SystemPlan:
        """Add the standby, and name it where the primary is named."""
        first = next(one for one in plan.processes if one.kind is Kind.POSTGRES)
        assert isinstance(first.server, Postgres)
        data, port = first.server.data, free_port()
        primary = standby.Primary(data, first.port, databases=first.server.databases)
        second = standby.Standby(data.with_name(SECOND), port, primary)
        both = {
            POSTGRES: replace(first, server=primary, command=tuple(primary.command())),
            SECOND: ProcessPlan(
                SECOND,
                Kind.POSTGRES,
                tuple(second.command()),
                port=port,
                server=second,
                after=frozenset({POSTGRES}),
            ),
        }
        addresses = f"{primary.address},{second.address}"
        others = [
            replace(
                one,
                environment={
                    name: value.replace(primary.address, addresses) for name, value in one.environment.items()
                },
                after=one.after | {SECOND} if POSTGRES in one.after else one.after,
            )
            for one in plan.processes
            if one is not first
        ]
        return replace(plan, processes=(*both.values(), *others))

    def database(self, system: System, name: str) -> str:
        """The one of both that takes writes."""
        servers = ",".join(system.processes[one].address for one in (POSTGRES, SECOND))
        return f"postgresql://meshq@{servers}/{name}?target_session_attrs=read-write"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[System]:
        """The system, where the server comes with what a standby is made by."""
        if standby.base_backup() is None:
            pytest.skip("there is no pg_basebackup beside this PostgreSQL")
        async with super().open() as system:
            yield system


async def fail_over(scene: Scene) -> None:
    """The primary is lost in the middle of its work and never comes back; its standby takes over."""
    system = scene.system
    system.kill(POSTGRES)
    await system.stop_process(POSTGRES)
    scene.history.mark("the primary is gone")
    url = f"postgresql://meshq@{system.processes[SECOND].address}/postgres"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SELECT pg_promote(true, 60)")
    scene.heal()


add(Fault("postgres-restart", restart))
add(Fault("postgres-connections-ended", end_connections, often=True))
add(Fault("postgres-unreachable", Break(HALF_OPEN, (POSTGRES,), 30.0, 4.0), WIRED))
add(Fault("postgres-disk-full", fill_disk, SMALL_DISK, alone=True))
add(Fault("postgres-failover", fail_over, Replicated(), alone=True, often=True))
