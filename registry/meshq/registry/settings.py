"""The settings of the registry."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from meshq.mesh.settings import Address, ProcessSettings
from meshq.registry.policy import Policy, load_policy


def _policy(value: object) -> object:
    return load_policy(value or None) if isinstance(value, str) else value


class RegistrySettings(ProcessSettings):
    """What the registry has beside the settings of every process."""

    component: ClassVar[str] = "meshq.registry"

    listen: Address = "127.0.0.1:7400"
    """Where others find it: what they have in `MESHQ_REGISTRY_ADDRESSES`."""
    mesh_policy: Annotated[Policy, NoDecode, BeforeValidator(_policy)] = ""  # type: ignore[assignment]
    """A TOML file that is laid over the packaged `mesh.toml`."""
