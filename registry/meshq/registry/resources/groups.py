"""Which instances make up which cluster, and how much of the traffic each cluster gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from meshq.registry.directory import Instance, dialable
from meshq.registry.policy import Canary
from meshq.registry.resources.names import canary_of

_ALL = 100


@dataclass(frozen=True)
class Groups:
    """The instances by cluster, and the clusters by component.

    Attributes:
        members: The instances of each cluster, by the cluster's name.
        shares: For each component its clusters with their percentage of the traffic.
    """

    members: Mapping[str, Sequence[Instance]] = field(default_factory=dict)
    shares: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)


def grouped(
    instances: Iterable[Instance], components: Iterable[str], canaries: Mapping[str, Canary]
) -> Groups:
    """Divide the instances among clusters.

    Args:
        instances: Those that take traffic.
        components: All that are known, those without an instance included.
        canaries: The versions that get a share of their own, by component.
    """
    members: dict[str, list[Instance]] = {component: [] for component in components}
    for component, canary in canaries.items():
        if component in members:
            members[canary_of(component, canary.version)] = []
    for item in instances:
        if dialable(item.address):
            members.setdefault(_cluster_of(item, canaries), []).append(item)
    shares = {
        component: _shares(component, members, canaries.get(component))
        for component in members
        if "@" not in component
    }
    return Groups(members, shares)


def _cluster_of(instance: Instance, canaries: Mapping[str, Canary]) -> str:
    canary = canaries.get(instance.component)
    if canary is not None and canary.version == instance.version:
        return canary_of(instance.component, canary.version)
    return instance.component


def _shares(
    component: str, members: Mapping[str, Sequence[Instance]], canary: Canary | None
) -> list[tuple[str, int]]:
    """A version without instances gets nothing, whatever the policy says."""
    if canary is None:
        return [(component, _ALL)]
    other = canary_of(component, canary.version)
    if not members[other]:
        return [(component, _ALL)]
    if not members[component]:
        return [(other, _ALL)]
    shares = [(component, _ALL - canary.percent), (other, canary.percent)]
    return [(cluster, share) for cluster, share in shares if share]
