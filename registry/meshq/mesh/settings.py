"""The settings of a process: environment `MESHQ_*` over a TOML file over defaults.

The file is named by `MESHQ_CONFIG`. What stands at its top holds for every process; a table named
like the component without `meshq.`, such as `[execution]`, holds for that component only. This is the
one place where a process reads its environment.
"""

from __future__ import annotations

import os
import secrets
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from meshq.contract.limits import NAME_PATTERN, NAME_RULE

PREFIX = "MESHQ_"
CONFIG = "MESHQ_CONFIG"
EXIT_BAD_SETTINGS = 2
_MAX_PORT = 65_535


def _host_and_port(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise ValueError("must be host:port")
    return value


def _name(value: str) -> str:
    if not NAME_PATTERN.fullmatch(value):
        raise ValueError(NAME_RULE)
    return value


def _parts(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Address = Annotated[str, AfterValidator(_host_and_port)]
"""A setting of the form `host:port`."""

Name = Annotated[str, AfterValidator(_name)]
"""A setting that is a name of the mesh."""

CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
"""A setting of several values with commas between them."""

Addresses = Annotated[tuple[Address, ...], NoDecode, BeforeValidator(_parts), Field(min_length=1)]
"""A setting of one or several addresses with commas between them."""


class SettingsError(Exception):
    """A setting is missing or has a bad value; the message names it in one sentence."""


class _TomlSource(PydanticBaseSettingsSource):
    """The file named by `MESHQ_CONFIG`: what is common to all, then the component's own table."""

    def __init__(self, settings_cls: type[ProcessSettings]) -> None:
        super().__init__(settings_cls)
        self._component = settings_cls.component.removeprefix("meshq.")

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = os.environ.get(CONFIG)
        if not path:
            return {}
        content = _read_toml(Path(path))
        common = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
        own = content.get(self._component, {})
        self._refuse_unknown(common, ProcessSettings.model_fields, path)
        self._refuse_unknown(own, self.settings_cls.model_fields, f"{path} [{self._component}]")
        return {**common, **own}

    @staticmethod
    def _refuse_unknown(found: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
        for key in found:
            if key not in known:
                raise SettingsError(f"{place}: there is no setting {key!r} here")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{CONFIG}: cannot read {path}: {error}") from error


class ProcessSettings(BaseSettings):
    """What every process has. A component sets `component` and adds fields of its own."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", validate_default=True, hide_input_in_errors=True
    )

    component: ClassVar[str] = "meshq.process"

    instance_id: Name = ""
    """Unique among running processes; made up from the component when it is not set."""
    listen: Address = "127.0.0.1:0"
    """Where gRPC is served; port 0 takes a free one."""
    admin_listen: Address = "127.0.0.1:0"
    """Where `/metrics` and `/healthz` are served over HTTP."""
    advertise: Address | None = None
    """The address to register; what was bound unless set."""
    etcd_endpoints: Addresses = ("127.0.0.1:2379",)
    registry_addresses: Addresses = ("127.0.0.1:7400",)
    mesh_target: Annotated[str, Field(min_length=1)] = "xds:///meshq"
    """The gRPC target by which other components are called."""
    zone: Name = "local"
    weight: Annotated[int, Field(ge=1, le=1_000)] = 1
    """The share of the traffic relative to other instances."""
    lease_seconds: Annotated[int, Field(ge=2, le=300)] = 10
    """How long a registration outlives its process."""
    drain_delay: Annotated[float, Field(ge=0, le=60)] = 0.5
    """Seconds between deregistering and draining, in which callers learn of it."""
    drain_timeout: Annotated[float, Field(ge=0, le=3_600)] = 30.0
    """Seconds that draining and the calls under way get at a stop."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="before")
    @classmethod
    def _make_id(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("instance_id"):
            return values
        return values | {"instance_id": f"{cls.component.removeprefix('meshq.')}-{secrets.token_hex(4)}"}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the file."""
        assert issubclass(settings_cls, ProcessSettings)
        return init_settings, env_settings, _TomlSource(settings_cls)

    @classmethod
    def load(cls) -> Self:
        """The settings of this process; a bad one ends the process with one sentence and code 2."""
        try:
            return cls()
        except ValidationError as error:
            _give_up(_sentence(cls, error))
        except SettingsError as error:
            _give_up(str(error))


def _sentence(cls: type[ProcessSettings], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    location = [str(part) for part in first["loc"]]
    name = (cls.model_config.get("env_prefix") or "") + (location[0].upper() if location else "")
    if first["type"] == "missing":
        return f"{name} is required."
    reason = first["msg"].removeprefix("Value error, ")
    return f"{name}: {reason[:1].lower()}{reason[1:]}."


def _give_up(sentence: str) -> NoReturn:
    sys.stderr.write(f"meshq: {sentence}\n")
    raise SystemExit(EXIT_BAD_SETTINGS)
