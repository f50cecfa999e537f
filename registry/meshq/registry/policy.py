"""How processes may talk to each other, as data: `mesh.toml`, with a file of the operator's over it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PACKAGED: Final = Path(__file__).with_name("mesh.toml")

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Percent = Annotated[int, Field(ge=1, le=100)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Deadlines(_Table):
    """Seconds that unary calls may take; by `service/method` where it is not the default."""

    default: Seconds
    methods: dict[str, Seconds]

    def of(self, service: str, method: str) -> float:
        """The deadline of one method."""
        return self.methods.get(f"{service}/{method}", self.default)


class Retries(_Table):
    """How calls are repeated that may be repeated."""

    attempts: Annotated[int, Field(ge=1, le=5)]
    base_interval: Seconds
    max_interval: Seconds


class CircuitBreaker(_Table):
    """Calls under way from one process to one component."""

    max_requests: Count
    max_retries: Count


class Outlier(_Table):
    """When an instance is left out for a while because its calls fail."""

    failure_percentage: Percent
    request_volume: Count
    interval: Seconds
    base_ejection_time: Seconds
    max_ejection_percent: Percent
    minimum_instances: Count


class Canary(_Table):
    """The share of the traffic that instances of one version get."""

    version: Annotated[str, Field(min_length=1)]
    percent: Annotated[int, Field(ge=0, le=100)]


class Edge(_Table):
    """What the edge passes to the console."""

    paths: tuple[str, ...]
    prefixes: tuple[str, ...]


class Policy(_Table):
    """All of it."""

    deadlines: Deadlines
    retries: Retries
    circuit_breaker: CircuitBreaker
    outlier: Outlier
    canary: dict[str, Canary]
    edge: Edge


def load_policy(path: str | Path | None) -> Policy:
    """The packaged policy, with a file over it if one is named.

    Raises:
        ValueError: The file cannot be read, or says something that makes no sense; names the entry.
    """
    content = _read(PACKAGED)
    if path:
        content = _laid_over(content, _read(Path(path)))
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        entry = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{entry} in {path}: {first['msg']}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = below.get(key)
        both = isinstance(value, dict) and isinstance(known, dict)
        merged[key] = _laid_over(known, value) if both and known is not None else value
    return merged
