"""Consoles: the only module that makes them. It imports rich and is imported when something is drawn."""

from __future__ import annotations

from typing import IO

from rich.console import Console

# Wide enough that no table is ever cut in a file or a pipe.
_UNLIMITED = 10_000


class PipedConsole(Console):
    """A console that leaves a closed pipe to the command line, which ends quietly."""

    def on_broken_pipe(self) -> None:
        """Say so, instead of ending the process from within."""
        raise BrokenPipeError


def console(file: IO[str], *, color: bool) -> Console:
    """A console on a file; what is printed is never read as markup."""
    return PipedConsole(
        file=file,
        no_color=None if color else True,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if file.isatty() else _UNLIMITED,
    )
