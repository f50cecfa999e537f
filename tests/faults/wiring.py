"""A system with a link before every server, so that the network between any two processes can be broken.

Stores and the registry are reached through their links by the processes' settings, components by the address
that they advertise, and the edge by the address that clients are told.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import psutil
from faults.link import Link, Trouble
from faults.stage import Setup

from meshq.local.plan import Kind, ProcessPlan, SystemPlan
from meshq.local.system import System

EDGE = str(Kind.GATEWAY)
_ADVERTISING = frozenset({Kind.MANAGEMENT, Kind.EXECUTION})
_OWN = frozenset({"MESHQ_LISTEN", "MESHQ_ADMIN_LISTEN", "MESHQ_GATEWAY_LISTEN"})


@dataclass(frozen=True)
class Wired(Setup):
    """See the module. One object is one wiring: faults that are to share a system take the same.

    Attributes:
        links: The links of the system that runs, by the name of the process that they lead to.
        running: That system.
        callers: Who has which port, as found since trouble was made last: looking takes a while.
    """

    links: dict[str, Link] = field(default_factory=dict, compare=False)
    running: list[System] = field(default_factory=list, compare=False)
    callers: dict[int, str] = field(default_factory=dict, compare=False)

    def shape(self, plan: SystemPlan) -> SystemPlan:
        """Lead everything through links."""
        self.links.clear()
        for process in plan.processes:
            if process.port:
                self.links[process.name] = link = Link(process.name, process.address, self._caller)
                link.open()
        ways = {
            self.links[one.name].target: self.links[one.name].address for one in plan.processes if one.port
        }
        return replace(
            plan,
            processes=tuple(self._wired(process, ways) for process in plan.processes),
            edge=self.links[EDGE].address,
            clients=_led(plan.clients, ways),
        )

    def database(self, system: System, name: str) -> str:
        """Straight to the server: the checker is not part of the network."""
        return f"postgresql://meshq@{system.processes['postgres'].address}/{name}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[System]:
        """The system while it runs, with its links."""
        try:
            async with super().open() as system:
                self.running.append(system)
                yield system
                self.heal()
        finally:
            self.running.clear()
            for link in self.links.values():
                await link.close()

    def impose(self, trouble: Trouble, servers: Collection[str]) -> None:
        """Have trouble on the way to some servers."""
        self.callers.clear()
        for name in servers:
            self.links[name].impose(trouble)

    def heal(self) -> None:
        """Have no trouble anywhere."""
        for link in self.links.values():
            link.heal()

    def _wired(self, process: ProcessPlan, ways: Mapping[str, str]) -> ProcessPlan:
        environment = _led(process.environment, ways)
        if process.kind in _ADVERTISING:
            environment["MESHQ_ADVERTISE"] = self.links[process.name].address
        return replace(process, environment=environment)

    def _caller(self, port: int) -> str:
        """The process that has a connection with this port of its own; empty for the test itself."""
        if port not in self.callers:
            for system in self.running:
                self.callers.update(_callers(system))
        return self.callers.setdefault(port, "")


def _led(environment: Mapping[str, str], ways: Mapping[str, str]) -> dict[str, str]:
    """The environment with the addresses of links for those of servers."""
    whole = re.compile("|".join(rf"{re.escape(address)}(?!\d)" for address in ways))
    return {
        name: value if name in _OWN else whole.sub(lambda match: ways[match.group()], value)
        for name, value in environment.items()
    }


def _callers(system: System) -> dict[int, str]:
    """Who has which port, of the processes of a system and of those that they have started."""
    names = {process.pid: name for name, process in system.processes.items() if process.pid is not None}
    for process in psutil.process_iter(["ppid"]):  # in the order of their ids: parents come first
        if process.info["ppid"] in names:
            names.setdefault(process.pid, names[process.info["ppid"]])
    found: dict[int, str] = {}
    for pid, name in names.items():
        with suppress(psutil.Error):
            connections = psutil.Process(pid).net_connections("tcp")
            found.update((one.laddr.port, name) for one in connections if one.raddr)
    return found
