"""A PostgreSQL with a standby that streams from it, made by `pg_basebackup` as an operator would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from meshq.local import binaries
from meshq.local.ports import LOOPBACK
from meshq.local.servers import POSTGRES_USER, Postgres, Preparation

NAME = "standby"
SYNCHRONOUS = f"synchronous_standby_names={NAME}"


def base_backup() -> Path | None:
    """The program, which comes with the server; None where it does not."""
    program = binaries.find("postgres").resolve().with_name("pg_basebackup")
    return program if program.exists() else None


class Primary(Postgres):
    """One that acknowledges a commit only when the standby has it on its disk."""

    def command(self) -> list[str]:
        """As usual, with the name of the standby."""
        return [*super().command(), "-c", SYNCHRONOUS]


class Standby(Postgres):
    """One that follows another until it is promoted.

    Args:
        data: Its folder.
        port: Its port.
        primary: Whom it follows.
        durable: Whether it skips fsync.
    """

    def __init__(self, data: Path, port: int, primary: Postgres, *, durable: bool = True) -> None:
        super().__init__(data, port, durable=durable)
        self.primary = primary

    def preparations(self) -> Iterator[Preparation]:
        """Copy the primary while it runs, once."""
        program = base_backup()
        assert program is not None
        if self.initialized:
            return
        unfinished = self.data.with_name(self.data.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        self.rights.hand_over(unfinished, program)
        source = f"host={LOOPBACK} port={self.primary.port} user={POSTGRES_USER} application_name={NAME}"
        words = ("-d", source, "-D", str(unfinished), "-R", "-X", "stream", "-c", "fast")
        yield Preparation((str(program), *words))
        unfinished.rename(self.data)
