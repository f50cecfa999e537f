"""Which processes make a system, with which commands, environment and ports. Nothing is started here."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from meshq.local import binaries, datadir
from meshq.local.ports import LOOPBACK
from meshq.local.servers import Etcd, Postgres, Server, Valkey
from meshq.local.settings import LocalSettings

MANAGEMENT, EXECUTION = "management", "execution"
_MESH = "xds:///meshq"
# On one machine nobody needs half a second to hear that a process leaves.
_DEFAULTS = {"MESHQ_DRAIN_DELAY": "0.1", "MESHQ_DRAIN_TIMEOUT": "5"}
_PRIVATE = frozenset(
    {
        "GRPC_XDS_BOOTSTRAP",
        "GRPC_XDS_BOOTSTRAP_CONFIG",
        "MESHQ_ADMIN_LISTEN",
        "MESHQ_ADVERTISE",
        "MESHQ_DATABASE_URL",
        "MESHQ_INSTANCE_ID",
        "MESHQ_LISTEN",
        "MESHQ_TARGET",
    }
)
_SHARD_MEMORY = range(256 << 20, 2 << 30)


class Kind(StrEnum):
    """What a process is."""

    ETCD = "etcd"
    SHARD = "shard"
    POSTGRES = "postgres"
    REGISTRY = "registry"
    MANAGEMENT = "management"
    EXECUTION = "execution"
    GATEWAY = "gateway"
    WORKER = "worker"


# Stopping goes from last to first: who is called ends after who calls.
STOP_WAVES = (
    frozenset({Kind.GATEWAY, Kind.WORKER}),
    frozenset({Kind.MANAGEMENT, Kind.EXECUTION}),
    frozenset({Kind.REGISTRY}),
    frozenset({Kind.ETCD, Kind.SHARD, Kind.POSTGRES}),
)


@dataclass(frozen=True)
class ProcessPlan:
    """One process to run."""

    name: str
    kind: Kind
    command: tuple[str, ...]
    """For a server the program is in `server`, which knows how to be launched."""
    port: int = 0
    """Where it serves; for the gateway, the edge."""
    admin_port: int = 0
    """Where it says over HTTP whether it is healthy; 0 if it does not."""
    after: frozenset[str] = frozenset()
    """The processes that must be ready before this one is started."""
    server: Server | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """host:port; empty if it serves nothing."""
        return f"{LOOPBACK}:{self.port}" if self.port else ""

    @property
    def module(self) -> tuple[str, ...]:
        """The Python module that is run and its arguments; empty if it needs a program of its own."""
        shared = self.command[:2] == _python() and not any(map(_decides_start, self.environment))
        return self.command[2:] if shared else ()


@dataclass(frozen=True)
class Size:
    """How many of each component."""

    management: int = 2
    execution: int = 2
    workers: int = 1
    shards: int = 3


@dataclass(frozen=True)
class SystemPlan:
    """All processes, in the order in which people like to read them, and the addresses that clients need."""

    processes: tuple[ProcessPlan, ...]
    edge: str
    shards: Mapping[str, str]
    clients: Mapping[str, str]
    """Environment for clients of the edge, and for those that find instances through the registry."""


def port_names(settings: LocalSettings, size: Size) -> list[str]:
    """Everything that needs a port, except the edge."""
    components = [Kind.REGISTRY, *_numbered(Kind.MANAGEMENT, size.management)]
    components += [*_numbered(Kind.EXECUTION, size.execution), Kind.GATEWAY]
    names = [name for component in components for name in (str(component), f"{component}.admin")]
    if not settings.etcd_endpoints:
        names.append(Kind.ETCD)
    if not settings.shards:
        names += _shards(size.shards)
    if _own_databases(settings):
        names.append(Kind.POSTGRES)
    return [str(name) for name in names]


def make_plan(
    data: Path, edge: int, ports: Mapping[str, int], settings: LocalSettings, size: Size
) -> SystemPlan:
    """Plan the processes of a system; raise MissingBinary if a server cannot be had."""
    stores = _stores(data, ports, settings, size)
    shards = {plan.name: plan.address for plan in stores if plan.kind is Kind.SHARD}
    registry = f"{LOOPBACK}:{ports[Kind.REGISTRY]}"
    common = {
        "MESHQ_ETCD_ENDPOINTS": settings.etcd_endpoints or f"{LOOPBACK}:{ports[Kind.ETCD]}",
        "MESHQ_REGISTRY_ADDRESSES": registry,
        "MESHQ_MESH_TARGET": _MESH,
        "PYTHONUNBUFFERED": "1",
    }
    clients = {
        "MESHQ_TARGET": f"{LOOPBACK}:{edge}",
        "MESHQ_REGISTRY_ADDRESSES": registry,
        "GRPC_XDS_BOOTSTRAP_CONFIG": xds_bootstrap(registry),
    }
    own = _databases(ports, settings)
    shard_list = settings.shards or ",".join(f"{name}={address}" for name, address in shards.items())
    components = [
        _component(Kind.REGISTRY, Kind.REGISTRY, ports, common),
        *(
            _component(name, Kind.MANAGEMENT, ports, {**common, "MESHQ_DATABASE_URL": own[MANAGEMENT]})
            for name in _numbered(Kind.MANAGEMENT, size.management)
        ),
        *(
            _component(
                name,
                Kind.EXECUTION,
                ports,
                {**common, "MESHQ_DATABASE_URL": own[EXECUTION], "MESHQ_SHARDS": shard_list},
            )
            for name in _numbered(Kind.EXECUTION, size.execution)
        ),
        replace(_component(Kind.GATEWAY, Kind.GATEWAY, ports, {**common, **_edge(data, edge)}), port=edge),
    ]
    workers = [_worker(name, clients) for name in _numbered(Kind.WORKER, size.workers)]
    processes = _in_order([*stores, *components, *workers])
    return SystemPlan(processes, f"{LOOPBACK}:{edge}", shards, clients)


def xds_bootstrap(registry: str) -> str:
    """GRPC's xDS bootstrap as one line of JSON."""
    server = {
        "server_uri": registry,
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    return json.dumps({"xds_servers": [server], "node": {"id": "local", "locality": {"zone": "local"}}})


def child_environment(plan: ProcessPlan, base: Mapping[str, str]) -> dict[str, str]:
    """What a process finds in its environment."""
    return {**common_environment(base), **plan.environment}


def common_environment(base: Mapping[str, str]) -> dict[str, str]:
    """What every process finds in its environment: ours, except settings that are meant for one only."""
    inherited = {name: value for name, value in base.items() if name not in _PRIVATE}
    return {**_DEFAULTS, **inherited}


def _in_order(plans: Sequence[ProcessPlan]) -> tuple[ProcessPlan, ...]:
    """Say what waits for what.

    Everything bears to be started before what it needs, and most is. But making a PostgreSQL cluster takes a
    while, in which those who need it would only take the processor from it.
    """
    names = {kind: frozenset(plan.name for plan in plans if plan.kind is kind) for kind in Kind}
    after = {
        Kind.MANAGEMENT: names[Kind.POSTGRES],
        Kind.EXECUTION: names[Kind.POSTGRES],
        Kind.WORKER: names[Kind.POSTGRES],
    }
    return tuple(replace(plan, after=after.get(plan.kind, frozenset())) for plan in plans)


def _numbered(kind: Kind, count: int) -> list[str]:
    return [f"{kind}-{number}" for number in range(1, count + 1)] if count != 1 else [str(kind)]


def _shards(count: int) -> list[str]:
    """Shards keep their names whatever their number, so that it may change."""
    return [f"{Kind.SHARD}-{number}" for number in range(1, count + 1)]


def _own_databases(settings: LocalSettings) -> list[str]:
    urls = {MANAGEMENT: settings.management_database_url, EXECUTION: settings.execution_database_url}
    return [name for name, url in urls.items() if not url]


def _stores(data: Path, ports: Mapping[str, int], settings: LocalSettings, size: Size) -> list[ProcessPlan]:
    plans = []
    if not settings.etcd_endpoints:
        plans.append(_server(Kind.ETCD, Kind.ETCD, Etcd(data / "etcd", ports[Kind.ETCD])))
    if not settings.shards:
        memory = _shard_memory()
        plans += [
            _server(name, Kind.SHARD, Valkey(data / name, ports[name], maxmemory=memory))
            for name in _shards(size.shards)
        ]
    if _own_databases(settings):
        # Both are made whatever the settings say: they may say something else tomorrow.
        server = Postgres(data / "postgres", ports[Kind.POSTGRES], databases=(MANAGEMENT, EXECUTION))
        plans.append(_server(Kind.POSTGRES, Kind.POSTGRES, server))
    return plans


def _shard_memory() -> int:
    """An eighth of this machine's memory for each shard, within reason."""
    eighth = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
    return min(max(eighth, _SHARD_MEMORY.start), _SHARD_MEMORY.stop)


def _databases(ports: Mapping[str, int], settings: LocalSettings) -> dict[str, str]:
    local = Postgres(Path(), ports.get(Kind.POSTGRES, 0))
    return {
        MANAGEMENT: settings.management_database_url or local.url(MANAGEMENT),
        EXECUTION: settings.execution_database_url or local.url(EXECUTION),
    }


def _edge(data: Path, port: int) -> dict[str, str]:
    return {
        "MESHQ_GATEWAY_LISTEN": f"{LOOPBACK}:{port}",
        "MESHQ_BIN_ENVOY": str(binaries.find("envoy")),
        "TMPDIR": str(datadir.temporary(data)),
    }


def _server(name: str, kind: Kind, server: Server) -> ProcessPlan:
    return ProcessPlan(
        str(name),
        kind,
        tuple(server.command()),
        port=server.port,
        server=server,
        environment=server.environment,
    )


def _component(
    name: str, kind: Kind, ports: Mapping[str, int], environment: Mapping[str, str]
) -> ProcessPlan:
    own = {
        "MESHQ_LISTEN": f"{LOOPBACK}:{ports[name]}",
        "MESHQ_ADMIN_LISTEN": f"{LOOPBACK}:{ports[f'{name}.admin']}",
    }
    return ProcessPlan(
        name=str(name),
        kind=kind,
        command=_python(f"meshq.{kind}"),
        port=ports[name],
        admin_port=ports[f"{name}.admin"],
        environment={**environment, **own},
    )


def _worker(name: str, clients: Mapping[str, str]) -> ProcessPlan:
    command = _python("meshq.worker", "--target", _MESH, "--tasks", "meshq.tasks", "--drain-timeout", "5")
    return ProcessPlan(name, Kind.WORKER, command, environment={**clients, "PYTHONUNBUFFERED": "1"})


def _decides_start(name: str) -> bool:
    """Whether an environment variable is read when a program starts, and never again."""
    return name.startswith(("PYTHON", "LD_")) and name != "PYTHONUNBUFFERED"


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *words)


def in_stop_waves(processes: Sequence[ProcessPlan]) -> list[list[ProcessPlan]]:
    """The processes in the order in which they are stopped, wave by wave."""
    return [[plan for plan in processes if plan.kind in wave] for wave in STOP_WAVES]
