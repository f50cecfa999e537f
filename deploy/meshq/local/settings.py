"""What can be set for the local system: the environment, then `[local]` in the file that MESHQ_CONFIG names.

Addresses of servers that run elsewhere replace the local ones.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from meshq.local.errors import BadSetting

EDGE_PORT = 8080
_PREFIX = "MESHQ_"
_NAMES = ("etcd_endpoints", "shards", "management_database_url", "execution_database_url")


@dataclass(frozen=True)
class LocalSettings:
    """Where servers run that must not be started here; empty means: start one."""

    etcd_endpoints: str = ""
    shards: str = ""
    management_database_url: str = ""
    execution_database_url: str = ""

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings; raise BadSetting for a file that cannot be read."""
        environment = os.environ if environment is None else environment
        table = _table(environment.get(_PREFIX + "CONFIG", ""))
        return cls(**{name: environment.get(_PREFIX + name.upper()) or _text(table, name) for name in _NAMES})


def default_data(environment: Mapping[str, str] | None = None) -> Path:
    """The data directory unless a command names one: MESHQ_DATA, or meshq in the user's data folder."""
    environment = os.environ if environment is None else environment
    if named := environment.get(_PREFIX + "DATA"):
        return Path(named).expanduser()
    home = environment.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "meshq"


def _table(config: str) -> Mapping[str, Any]:
    if not config:
        return {}
    try:
        table = tomllib.loads(Path(config).read_text(encoding="utf-8")).get("local", {})
    except (OSError, ValueError) as error:
        raise BadSetting(f"MESHQ_CONFIG names {config}, which cannot be read: {error}.") from error
    return table if isinstance(table, dict) else {}


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name, "")
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        raise BadSetting(f"The setting {name} in [local] must be a text or a list of texts.")
    return value
