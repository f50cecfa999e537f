"""Whether the mesh can do its work, in one word and by component."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from meshq.gateway.console.view import COMPONENTS, EXECUTION, MANAGEMENT, REGISTRY, Overview, ShardView
from meshq.gateway.envoy.supervisor import EnvoyState

OK: Final = "ok"
DEGRADED: Final = "degraded"
DRAINING: Final = "draining"
UNAVAILABLE: Final = "unavailable"

UNREACHABLE: Final = "UNREACHABLE"
"""The state of a shard that does not answer."""


@dataclass(frozen=True)
class Health:
    """The answer of `/healthz`.

    Attributes:
        status: `ok`; `degraded` when something does not answer though its processes are known;
            `draining` when the gateway is about to stop; `unavailable` when a process that every call
            needs is missing.
        components: For each component how many instances are known and whether it answered.
        edge: How Envoy is.
    """

    status: str
    components: Mapping[str, Mapping[str, Any]]
    edge: Mapping[str, Any]

    @property
    def serves(self) -> bool:
        """Whether clients can be sent here."""
        return self.status in (OK, DEGRADED)


def assess(known: Iterable[str], overview: Overview, edge: EnvoyState) -> Health:
    """Judge the mesh.

    Args:
        known: The component of each instance that the directory knows; it remembers them while the
            registry is away, because traffic goes on then, too.
        overview: What the components answered.
        edge: How Envoy is.
    """
    instances = list(known)
    counts = {component: instances.count(component) for component in COMPONENTS}
    problems = {
        REGISTRY: overview.instances.problem,
        MANAGEMENT: overview.queues.problem,
        EXECUTION: overview.shards.problem or _unreachable(overview.shards.items) or overview.workers.problem,
    }
    components = {
        component: {"instances": count, "problem": problems.get(component)}
        for component, count in counts.items()
    }
    state = {
        "live": edge.live,
        "routes": edge.routes,
        "active_calls": edge.active_calls,
        "restarts": edge.restarts,
    }
    return Health(_status(counts, problems, edge), components, state)


def _unreachable(shards: Sequence[ShardView]) -> str | None:
    lost = sum(shard.state == UNREACHABLE for shard in shards)
    return f"{lost} of {len(shards)} shards do not answer." if lost else None


def _status(counts: Mapping[str, int], problems: Mapping[str, str | None], edge: EnvoyState) -> str:
    if edge.draining:
        return DRAINING
    if not (counts[MANAGEMENT] and counts[EXECUTION] and edge.live and edge.routes):
        return UNAVAILABLE
    return DEGRADED if any(problems.values()) else OK
