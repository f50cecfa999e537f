"""Workers, the processes of the mesh and the shards, drawn for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from meshq.cli.drawings import clock, pairs, sheet, short_clock, state, table, with_numbers

if TYPE_CHECKING:  # imports grpc
    from meshq.client import models


def workers(items: Iterable[models.Worker]) -> Table:
    """Workers, one a row."""
    rows = [
        (
            item.worker_id,
            state(item.state),
            item.mode.lower(),
            f"{item.leases}/{item.slots}" if item.slots else str(item.leases),
            ", ".join(item.queues),
            ", ".join(item.task_types),
            short_clock(item.last_seen_time),
        )
        for item in items
    ]
    return table(["WORKER", "STATE", "MODE", "BUSY", "QUEUES", "TYPES", "LAST SEEN"], rows, whole=("WORKER",))


def worker(item: models.Worker) -> Table:
    """Everything about one worker."""
    return sheet(
        [
            ("worker", item.worker_id),
            ("state", state(item.state)),
            ("mode", item.mode.lower()),
            ("slots", f"{item.slots:,}" if item.slots else ""),
            ("leases", f"{item.leases:,}"),
            ("queues", ", ".join(item.queues)),
            ("types", ", ".join(item.task_types)),
            ("labels", pairs(item.labels)),
            ("build", item.build_id),
            ("agent", item.user_agent),
            ("instance", item.instance_id),
            ("session", item.session_id),
            ("connected", clock(item.connect_time)),
            ("last seen", clock(item.last_seen_time)),
        ]
    )


def services(items: Iterable[models.Service]) -> Table:
    """GRPC services, one a row."""
    rows = [(item.service, item.component, str(item.instances)) for item in items]
    return with_numbers(table(["SERVICE", "COMPONENT", "INSTANCES"], rows), ["INSTANCES"])


def instances(items: Iterable[models.Instance]) -> Table:
    """Processes of the mesh, one a row."""
    rows = [
        (
            item.component,
            item.instance_id,
            state(item.state),
            "yes" if item.leader else "",
            item.address,
            item.admin_address,
            item.version,
            item.zone,
            short_clock(item.register_time),
        )
        for item in items
    ]
    columns = [
        "COMPONENT",
        "INSTANCE",
        "STATE",
        "LEADER",
        "ADDRESS",
        "ADMIN",
        "VERSION",
        "ZONE",
        "REGISTERED",
    ]
    return table(columns, rows, whole=("INSTANCE", "ADDRESS"))


def shards(ring: models.Ring) -> Table:
    """The ring, one shard a row."""
    columns = ["SHARD", "STATE", "ADDRESS", "SHARE", "WEIGHT", "READY", "DELAYED", "LEASED", "KEYS", "OPS/S"]
    columns += ["MEMORY", "TO MOVE"]
    rows = [
        (
            item.shard,
            state(item.state),
            _address(item),
            f"{item.share:.1%}",
            str(item.weight),
            f"{item.ready:,}",
            f"{item.delayed:,}",
            f"{item.leased:,}",
            f"{item.keys:,}",
            f"{item.operations_per_second:,.0f}",
            _memory(item),
            f"{item.tasks_to_move:,}" if item.state == "DRAINING" else "",
        )
        for item in ring.shards
    ]
    return with_numbers(table(columns, rows, whole=("SHARD", "ADDRESS")), columns[3:])


def _address(item: models.Shard) -> str:
    """Where it is; of one that Sentinels watch over, the primary of now."""
    return item.primary_address or item.address


def _memory(item: models.Shard) -> str:
    used = f"{item.used_memory_bytes / 2**20:,.1f} MiB"
    return f"{used} ({item.used_memory_bytes / item.max_memory_bytes:.0%})" if item.max_memory_bytes else used
