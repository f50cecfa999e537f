"""etcd and the registry: gone, back, and back with nothing. Traffic goes on without them."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, replace

from faults.stage import Setup
from faults.table import Fault, Scene, add

from meshq.local.plan import Kind, SystemPlan, xds_bootstrap
from meshq.local.ports import LOOPBACK, free_ports

SECOND = "registry-2"


@dataclass(frozen=True)
class TwoRegistries(Setup):
    """A system with a second registry, which everybody knows."""

    def shape(self, plan: SystemPlan) -> SystemPlan:
        """Add one like the first."""
        first = next(one for one in plan.processes if one.kind is Kind.REGISTRY)
        port, admin = free_ports(2)
        second = replace(
            first,
            name=SECOND,
            port=port,
            admin_port=admin,
            environment={
                **first.environment,
                "MESHQ_LISTEN": f"{LOOPBACK}:{port}",
                "MESHQ_ADMIN_LISTEN": f"{LOOPBACK}:{admin}",
            },
        )
        both = f"{first.address},{second.address}"
        known = {
            "MESHQ_REGISTRY_ADDRESSES": both,
            "GRPC_XDS_BOOTSTRAP_CONFIG": xds_bootstrap(f"ipv4:{both}"),
        }
        processes = [
            replace(
                one,
                environment={
                    **one.environment,
                    **{name: known[name] for name in known.keys() & one.environment.keys()},
                },
            )
            for one in (*plan.processes, second)
        ]
        return replace(plan, processes=tuple(processes))


async def restart_etcd(scene: Scene) -> None:
    """An orderly restart with its data."""
    await scene.system.restart("etcd")


async def empty_etcd(scene: Scene) -> None:
    """It comes back and knows nothing of anybody."""
    await scene.system.stop_process("etcd")
    shutil.rmtree(scene.system.data / "etcd")
    await scene.system.start_process("etcd")


async def etcd_away(scene: Scene) -> None:
    """It is away for longer than its leases last, and instances die meanwhile."""
    await scene.system.stop_process("etcd")
    await asyncio.sleep(scene.seconds(25, 2))
    scene.system.kill("management-2")
    scene.system.kill("execution-2")
    await asyncio.sleep(scene.seconds(35, 3))
    await scene.system.start_process("etcd")
    await scene.system.wait_ready("management-2")
    await scene.system.wait_ready("execution-2")


async def registries_away(scene: Scene) -> None:
    """All replicas are killed and stay away; an instance dies and comes back meanwhile."""
    names = [one.name for one in scene.system.processes.values() if one.kind is Kind.REGISTRY]
    for name in names:
        scene.system.kill(name)
        await scene.system.stop_process(name)
    await asyncio.sleep(scene.seconds(10, 1))
    scene.system.kill("management-2")
    await asyncio.sleep(scene.seconds(20, 2))
    for name in names:
        await scene.system.start_process(name)
    await scene.system.wait_ready("management-2")


async def kill_one_of_two(scene: Scene) -> None:
    """One replica is gone for a while; whoever was with it goes to the other."""
    scene.system.kill("registry")
    await scene.system.stop_process("registry")
    scene.system.kill("execution-2")
    await scene.system.wait_ready("execution-2")
    await scene.system.start_process("registry")


add(Fault("restart-etcd", restart_etcd))
add(Fault("empty-etcd", empty_etcd, often=True))
add(Fault("etcd-away", etcd_away))
add(Fault("registries-away", registries_away, TwoRegistries()))
add(Fault("kill-one-registry-of-two", kill_one_of_two, TwoRegistries()))
