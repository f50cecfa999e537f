"""What callers want of the ring, checked against the rules of the contract."""

from __future__ import annotations

from typing import Final, TypeVar

from meshq.contract.errors import FieldViolation, InvalidRequest, shown
from meshq.contract.limits import MAX_SHARD_WEIGHT, NAME_PATTERN, NAME_RULE
from meshq.execution.ring.address import parse_address
from meshq.execution.ring.hashring import RingShard
from meshq.v1 import ring_service_pb2 as pb

_SETTINGS: Final = ("address", "weight")

Violations = list[FieldViolation]
T = TypeVar("T")


def checked_name(name: str, field: str) -> str:
    """A shard's name; raises `InvalidRequest`."""
    violations: Violations = []
    _check_name(violations, name, field)
    return _unless(violations, name)


def checked_shard(message: pb.Shard) -> RingShard:
    """A shard that is to be added.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations: Violations = []
    _check_name(violations, message.shard, "shard.shard")
    address = _address(violations, message.address)
    weight = message.weight or 1
    _check_weight(violations, weight)
    return _unless(violations, RingShard(message.shard, address, weight))


def checked_update(request: pb.UpdateShardRequest) -> tuple[str, str | None, int | None]:
    """A shard's name, and the address and weight that it is to have; None for what stays.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    shard, violations = request.shard, list[FieldViolation]()
    _check_name(violations, shard.shard, "shard.shard")
    paths = list(request.update_mask.paths) or [name for name in _SETTINGS if getattr(shard, name)]
    rule = "must name address, weight or both"
    violations += [
        FieldViolation("update_mask", f"{rule}, not {shown(path)}") for path in paths if path not in _SETTINGS
    ]
    if not paths:
        violations.append(FieldViolation("update_mask", f"{rule}, as long as neither is set"))
    address = _address(violations, shard.address) if "address" in paths else None
    weight = None
    if "weight" in paths:
        weight = shard.weight or 1
        _check_weight(violations, weight)
    return _unless(violations, (shard.shard, address, weight))


def _unless(violations: Violations, value: T) -> T:
    if violations:
        raise InvalidRequest(violations)
    return value


def _check_name(violations: Violations, name: str, field: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        violations.append(FieldViolation(field, f"{NAME_RULE}, not {shown(name)}"))


def _check_weight(violations: Violations, weight: int) -> None:
    if not 1 <= weight <= MAX_SHARD_WEIGHT:
        violations.append(FieldViolation("shard.weight", f"must be 1 to {MAX_SHARD_WEIGHT}, not {weight}"))


def _address(violations: Violations, text: str) -> str:
    """The address as the ring has it."""
    try:
        return str(parse_address(text))
    except ValueError as error:
        violations.append(FieldViolation("shard.address", str(error)))
        return ""
