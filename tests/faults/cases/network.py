"""The network between any two processes: cut, half-open, silent, slow, in one direction only."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from faults.link import CUT, HALF_OPEN, SILENT, Trouble, Way
from faults.table import Fault, Scene, add
from faults.wiring import EDGE, Wired

WIRED = Wired()
STORES = ("postgres", "shard-1", "etcd")
COMPONENTS = ("management-1", "execution-1")
ONE_WAY_THERE, ONE_WAY_BACK = Trouble(lost=Way.THERE), Trouble(lost=Way.BACK)
SLOW = Trouble(latency=0.1, bandwidth=2_000_000)


@dataclass(frozen=True)
class Break:
    """What a fault does to the network.

    Attributes:
        trouble: What is wrong.
        servers: On the way to whom.
        seconds: For how long.
        short: For how long in the short form.
    """

    trouble: Trouble
    servers: Collection[str]
    seconds: float = 25.0
    short: float = 5.0

    async def __call__(self, scene: Scene) -> None:
        """Break it, wait, mend it."""
        WIRED.impose(self.trouble, self.servers)
        await asyncio.sleep(scene.seconds(self.seconds, self.short))
        WIRED.heal()
        scene.heal()


def _add(name: str, act: Break, *, often: bool = False, calls_fail: bool = False) -> None:
    add(Fault(f"net-{name}", act, WIRED, often=often, calls_fail=calls_fail))


def _between(caller: str, server: str) -> None:
    """One pair of processes, one of them no store."""
    trouble = replace(HALF_OPEN, callers=(caller,))
    _add(f"half-open-{caller}-to-{server}", Break(trouble, (server,)))


for _server in (*STORES, *COMPONENTS, EDGE, "registry"):
    _add(f"cut-{_server}", Break(CUT, (_server,), 10.0, 2.0))
    _add(f"half-open-{_server}", Break(HALF_OPEN, (_server,)), often=_server == "execution-1")
for _server in (*STORES, *COMPONENTS):
    _add(f"silent-{_server}", Break(SILENT, (_server,)))
    _add(f"slow-{_server}", Break(SLOW, (_server,), 15.0, 3.0))
    _add(f"one-way-to-{_server}", Break(ONE_WAY_THERE, (_server,)))
    _add(f"one-way-from-{_server}", Break(ONE_WAY_BACK, (_server,)))
for _pair in (
    ("management-1", "execution-1"),
    ("execution-1", "management-1"),
    ("management-1", "management-2"),
    ("worker-1", "execution-1"),
    (EDGE, "management-1"),
    ("execution-1", "shard-1"),
    ("management-1", "postgres"),
    ("execution-1", "postgres"),
):
    _between(*_pair)
