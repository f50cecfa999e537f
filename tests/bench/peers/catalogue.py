"""The peers: what each stores where, and the settings that make sense on two cores, a likely one first.

A setting says which workers run, as command lines of the peer's own programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

ADAPTERS: Final = "bench.peers.adapters"


@dataclass(frozen=True, slots=True)
class Setting:
    """A way to run a peer.

    Attributes:
        name: What is special about it.
        workers: Command lines, a process each; the program is looked for beside the peer's interpreter.
        value: What the adapter is told in PEER_SETTING.
        environment: More for the workers.
    """

    name: str
    workers: tuple[str, ...]
    value: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


class Stores(Enum):
    """Where a peer keeps tasks and results; the value says what of them survives a crash of the machine."""

    VALKEY = "nothing"
    BOTH = "results"
    POSTGRES = "tasks and results"


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer on its stores.

    Attributes:
        name: As the command line and the table have it.
        adapter: Its module below `bench.peers.adapters`, and its file of requirements.
        stores: What it runs on.
        share: Its tasks in a bulk run as a part of what is asked for; less where it is slow.
        settings: A likely one first.
    """

    name: str
    adapter: str
    stores: Stores
    share: float
    settings: tuple[Setting, ...]


def _celery(more: str) -> tuple[str, ...]:
    lean = "--without-gossip --without-mingle --without-heartbeat --loglevel ERROR"
    return (f"celery -A {ADAPTERS}.celery worker {lean} {more}",)


def _dramatiq(processes: int, threads: int) -> tuple[str, ...]:
    return (f"dramatiq {ADAPTERS}.dramatiq --processes {processes} --threads {threads}",)


def _huey(workers: int, kind: str) -> tuple[str, ...]:
    return (
        f"huey_consumer {ADAPTERS}.huey.huey --workers {workers} --worker-type {kind} --no-periodic --quiet",
    )


def _taskiq(workers: int, more: str = "") -> tuple[str, ...]:
    return (f"taskiq worker {ADAPTERS}.taskiq:broker --workers {workers} --log-level ERROR {more}".rstrip(),)


def _saq(workers: int) -> tuple[str, ...]:
    return (f"saq {ADAPTERS}.saq.settings --workers {workers} --quiet",)


def _arq(workers: int) -> tuple[str, ...]:
    return (f"arq {ADAPTERS}.arq.WorkerSettings --custom-log-dict {ADAPTERS}.arq.LOGS",) * workers


def _rq(workers: int, kind: str) -> tuple[str, ...]:
    return (f"rq worker-pool --url {{valkey}} --num-workers {workers} --worker-class {kind} --quiet",)


def _procrastinate(workers: int, concurrency: int) -> tuple[str, ...]:
    command = f"procrastinate --log-level error --app {ADAPTERS}.procrastinate.app worker"
    return (f"{command} --concurrency {concurrency}",) * workers


PREFETCH_1000: Final = {"dramatiq_queue_prefetch": "1000"}

PEERS: Final[Mapping[str, Peer]] = {
    peer.name: peer
    for peer in (
        Peer(
            "celery",
            "celery",
            Stores.VALKEY,
            0.5,
            (
                Setting("prefork of 2", _celery("--concurrency 2")),
                Setting("prefork of 4", _celery("--concurrency 4")),
                Setting("4 threads", _celery("--pool threads --concurrency 4")),
            ),
        ),
        Peer(
            "celery-postgres",
            "celery",
            Stores.BOTH,
            0.25,
            (
                Setting("prefork of 2", _celery("--concurrency 2"), "postgres"),
                Setting("prefork of 4", _celery("--concurrency 4"), "postgres"),
                Setting("8 threads", _celery("--pool threads --concurrency 8"), "postgres"),
            ),
        ),
        Peer(
            "dramatiq",
            "dramatiq",
            Stores.VALKEY,
            1.0,
            (
                Setting("2 processes of 8 threads", _dramatiq(2, 8)),
                Setting("2 processes of 2 threads", _dramatiq(2, 2)),
                Setting(
                    "2 processes of 8 threads, prefetch 1000", _dramatiq(2, 8), environment=PREFETCH_1000
                ),
            ),
        ),
        Peer(
            "huey",
            "huey",
            Stores.VALKEY,
            1.0,
            (
                Setting("2 processes", _huey(2, "process")),
                Setting("4 processes", _huey(4, "process")),
                Setting("4 threads", _huey(4, "thread")),
            ),
        ),
        Peer(
            "huey-postgres",
            "huey",
            Stores.POSTGRES,
            0.5,
            (
                Setting("4 processes", _huey(4, "process"), "postgres"),
                Setting("8 processes", _huey(8, "process"), "postgres"),
                Setting("2 processes", _huey(2, "process"), "postgres"),
            ),
        ),
        Peer(
            "taskiq",
            "taskiq",
            Stores.VALKEY,
            1.0,
            (
                Setting("stream, 2 processes", _taskiq(2), "stream"),
                Setting("list, 2 processes", _taskiq(2), "list"),
                Setting("stream, 1 process", _taskiq(1), "stream"),
            ),
        ),
        Peer(
            "saq",
            "saq",
            Stores.VALKEY,
            1.0,
            (
                Setting("2 processes, 20 at once", _saq(2), "valkey 20"),
                Setting("2 processes, 100 at once", _saq(2), "valkey 100"),
                Setting("1 process, 20 at once", _saq(1), "valkey 20"),
            ),
        ),
        Peer(
            "saq-postgres",
            "saq",
            Stores.POSTGRES,
            0.25,
            (
                Setting("2 processes, 20 at once", _saq(2), "postgres 20"),
                Setting("1 process, 20 at once", _saq(1), "postgres 20"),
                Setting("2 processes, 10 at once", _saq(2), "postgres 10"),
            ),
        ),
        Peer(
            "arq",
            "arq",
            Stores.VALKEY,
            0.5,
            (
                Setting("1 process, 100 at once", _arq(1), "100"),
                Setting("2 processes, 100 at once", _arq(2), "100"),
                Setting("2 processes, 10 at once", _arq(2), "10"),
            ),
        ),
        Peer(
            "rq",
            "rq",
            Stores.VALKEY,
            0.25,
            (
                Setting("2 processes that do not fork", _rq(2, "rq.worker.SimpleWorker")),
                Setting("4 processes that do not fork", _rq(4, "rq.worker.SimpleWorker")),
                Setting("2 processes that fork for each task", _rq(2, "rq.worker.Worker")),
            ),
        ),
        Peer(
            "procrastinate",
            "procrastinate",
            Stores.POSTGRES,
            0.25,
            (
                Setting("2 processes, 10 at once", _procrastinate(2, 10)),
                Setting("2 processes, 30 at once", _procrastinate(2, 30)),
                Setting("1 process, 30 at once", _procrastinate(1, 30)),
            ),
        ),
    )
}
