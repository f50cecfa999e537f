"""Asking a person before much is changed."""

from __future__ import annotations

import sys

import typer

from meshq.cli.errors import Trouble
from meshq.cli.exits import ExitCode
from meshq.cli.options import Session


def confirm(session: Session, question: str) -> None:
    """Go on only when a person agrees.

    Raises:
        Trouble: Nobody can be asked.
        typer.Exit: The person does not agree.
    """
    if not sys.stdin.isatty():
        raise Trouble(
            f"Nobody can be asked: {question}",
            ExitCode.USAGE,
            "give --yes to go on without",
            {"code": "USAGE"},
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        session.output.say("Nothing was changed.")
        raise typer.Exit(ExitCode.INTERRUPTED)
