"""etcd, Valkey and PostgreSQL as ordinary child processes.

Each class says how its server is prepared, started, asked and stopped; `start`, `stop` and `kill` do it here
and now, for tests. The supervisor of `meshq up` takes the same commands and runs them itself.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from meshq.local import binaries, launcher, probes
from meshq.local.errors import StartFailed
from meshq.local.ports import LOOPBACK
from meshq.local.privileges import Unprivileged, unprivileged

POSTGRES_USER = "meshq"
_READY_WITHIN = 30.0
_STOP_WITHIN = 10.0
_LOOK_EVERY = 0.02


def bound_to_parent(
    command: Sequence[str],
    death_signal: signal.Signals = signal.SIGKILL,
    rights: Unprivileged | None = None,
) -> list[str]:
    """The command of a process that dies with this one, as far as the operating system helps."""
    rights = rights or Unprivileged()
    if sys.platform != "linux" and rights.account is None:
        return list(command)
    account = f"{rights.account.pw_uid}:{rights.account.pw_gid}" if rights.account else ":"
    launch = [
        sys.executable,
        "-I",
        "-S",
        launcher.__file__,
        str(os.getpid()),
        str(int(death_signal)),
        account,
    ]
    return [*rights.prefix, *launch, *command]


@dataclass(frozen=True)
class Preparation:
    """A command to run once before a server starts for the first time."""

    command: tuple[str, ...]
    stdin: bytes = b""


class Server(ABC):
    """A server process with its folder and its port."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """What the server gets when the process that started it has died."""
    environment: ClassVar[Mapping[str, str]] = {}
    """What the server is to find in its environment beside ours."""

    def __init__(self, data: Path, port: int, *, durable: bool = True) -> None:
        """The folder belongs to the server alone; a server that is not durable skips fsync."""
        self.data = data
        self.port = port
        self.durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def log(self) -> Path:
        """Where the server's own words go when it is started here."""
        return self.data.with_name(self.data.name + ".log")

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def rights(self) -> Unprivileged:
        """With which rights the process runs; those of this one unless it says otherwise."""
        return Unprivileged()

    @abstractmethod
    def command(self) -> list[str]:
        """The command line in full."""

    def launched(self) -> list[str]:
        """The command line of a child that dies with this process."""
        return bound_to_parent(self.command(), self.death_signal, self.rights)

    @abstractmethod
    def ready(self) -> bool:
        """Whether it serves now."""

    def preparations(self) -> Iterator[Preparation]:
        """Make the folder what the server needs; what takes a process of its own is left to the caller.

        Each yielded command must have ended well before the next is asked for. Does nothing the second time.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        return iter(())

    def start(self) -> None:
        """Start the process unless it runs."""
        if self.running:
            return
        for preparation in self.preparations():
            self._run(preparation)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.launched(),
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, timeout: float = _READY_WITHIN) -> None:
        """Return when the server serves; raise StartFailed when it ends or the time is over."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                happened = "did not become ready" if self.running else "ended"
                raise StartFailed(f"{self.name} {happened}: {self._last_words()}")
            time.sleep(_LOOK_EVERY)

    def stop(self, timeout: float = _STOP_WITHIN) -> None:
        """Ask the process to end and wait for it; kill it if it takes too long."""
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _run(self, preparation: Preparation) -> None:
        done = subprocess.run(
            bound_to_parent(preparation.command, rights=self.rights),
            input=preparation.stdin,
            capture_output=True,
            check=False,
            start_new_session=True,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise StartFailed(f"{self.name} could not be prepared: {' | '.join(said[-3:])}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return " | ".join(lines[-5:]) or "it said nothing"


class Etcd(Server):
    """One etcd, a cluster of its own."""

    name = "etcd"
    # It wakes a hundred times a second with nothing to do, and each time Go hands that to another thread.
    # What some processes ask of it does not fill one.
    environment: ClassVar[Mapping[str, str]] = {"GOMAXPROCS": "1"}

    @property
    def endpoint(self) -> str:
        """host:port for clients."""
        return self.address

    def command(self) -> list[str]:
        """Peers are never spoken to; their port is any free one."""
        client, peer = f"http://{self.address}", f"http://{LOOPBACK}:0"
        flags = {
            "name": "local",
            "data-dir": str(self.data),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"local={peer}",
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "1h",
            # It elects itself when this time is over, and the default would have every start wait for it.
            "heartbeat-interval": "100",
            "election-timeout": "500",
            "log-level": "warn",
        }
        unsafe = [] if self.durable else ["--unsafe-no-fsync"]
        return [str(binaries.find("etcd")), *(f"--{name}={value}" for name, value in flags.items()), *unsafe]

    def ready(self) -> bool:
        """It has a leader."""
        return probes.etcd(LOOPBACK, self.port)


class Valkey(Server):
    """One shard of the ring: nothing on disk, nothing evicted."""

    name = "valkey"
    # The wheel's server takes its memory from glibc, unlike the packages of distributions. A frame's script
    # makes thousands of small strings: kept for the next one, they cost a fifth less of all its time. With as
    # many as can be kept, tombstones that expire fragment less, which takes another seventh once they do.
    environment: ClassVar[Mapping[str, str]] = {
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=65000:glibc.malloc.mxfast=0"
    }

    def __init__(self, data: Path, port: int, *, maxmemory: int = 0) -> None:
        """Bound the memory to that many bytes; 0 is no bound."""
        super().__init__(data, port, durable=False)
        self.maxmemory = maxmemory

    def command(self) -> list[str]:
        """Everything on the command line; no configuration file."""
        flags = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.data),
            "save": "",
            "appendonly": "no",
            "maxmemory": str(self.maxmemory),
            "maxmemory-policy": "noeviction",
            # A histogram for each of the commands of a script would cost more than some of them.
            "latency-tracking": "no",
            # How often a second it looks for something to tidy up. Of what the ring puts there only what
            # polls remember expires by itself, and tables grow and shrink with the commands.
            "hz": "2",
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        return [str(binaries.find("valkey-server")), *words]

    def ready(self) -> bool:
        """It answers PING."""
        return probes.valkey(LOOPBACK, self.port)


class Postgres(Server):
    """One PostgreSQL cluster on loopback, with trust for whoever is on this machine."""

    name = "postgres"
    stop_signal = signal.SIGINT  # fast: it does not wait for clients to leave
    death_signal = signal.SIGQUIT  # immediate: its own children end with it

    def __init__(self, data: Path, port: int, *, durable: bool = True, databases: Sequence[str] = ()) -> None:
        """The databases are made when the cluster is."""
        super().__init__(data, port, durable=durable)
        self.databases = tuple(databases)

    @property
    def rights(self) -> Unprivileged:
        """PostgreSQL refuses root."""
        return unprivileged()

    @property
    def initialized(self) -> bool:
        """Whether the cluster exists."""
        return (self.data / "PG_VERSION").exists()

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{POSTGRES_USER}@{self.address}/{database}"

    def preparations(self) -> Iterator[Preparation]:
        """Make the cluster and its databases, once.

        It is made under another name and renamed when it is complete: what was interrupted is made again.
        """
        if self.initialized:
            return
        unfinished = self.data.with_name(self.data.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        postgres, initdb = binaries.find("postgres"), binaries.find("initdb")
        self.rights.hand_over(unfinished, postgres, initdb)
        yield Preparation((str(initdb), "-D", str(unfinished), *self._initdb_words()))
        if self.databases:
            # A single-user server needs no port and no driver.
            statements = "".join(f'CREATE DATABASE "{name}"\n' for name in self.databases)
            command = (str(postgres), "--single", "-D", str(unfinished), "postgres")
            yield Preparation(command, statements.encode())
        if self.data.exists():
            self.data.rmdir()
        unfinished.rename(self.data)

    def _initdb_words(self) -> list[str]:
        words = [f"--username={POSTGRES_USER}", "--auth=trust", "--encoding=UTF8", "--no-locale"]
        return [*words, "--no-instructions", *([] if self.durable else ["--no-sync"])]

    def command(self) -> list[str]:
        """Settings on the command line; the files stay as initdb made them."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "max_wal_size": "2GB",
            "fsync": "on" if self.durable else "off",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(binaries.find("postgres")), "-D", str(self.data), *words]

    def ready(self) -> bool:
        """It lets people in."""
        return probes.postgres(LOOPBACK, self.port, POSTGRES_USER)

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self._execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        import psycopg  # noqa: PLC0415 - starting the system needs no driver

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())
