"""The entry point: runs the command line, and turns every end into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from meshq.cli.errors import Trouble, internal, report
from meshq.cli.exits import ExitCode

PROGRAM = "meshq"
TRACEBACK = "MESHQ_TRACEBACK"
"""Set by whoever looks for a fault."""
COMPLETION = "_MESHQ_COMPLETE"
"""Set by a shell that asks for completions; typer answers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; by default that of the process.

    Returns:
        The exit code; see `docs/cli.md`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    json = "--json" in (words[: words.index("--")] if "--" in words else words)
    try:
        code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return ExitCode.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - whatever it is, a person reads a sentence
        if os.environ.get(TRACEBACK):
            import traceback  # noqa: PLC0415

            traceback.print_exc()
        return report(error if isinstance(error, Trouble) else internal(error), json=json)
    return code


def _run(words: list[str]) -> int:
    try:
        import typer.main  # noqa: PLC0415

        from meshq.cli.app import application  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        raise Trouble(
            f"The command line needs the package {error.name}, which is not installed",
            ExitCode.USAGE,
            "install it with `pip install 'meshq[cli]'`",
        ) from error
    command = typer.main.get_command(application(words))
    if COMPLETION in os.environ:
        command.main(words, prog_name=PROGRAM)
    try:
        # Not by `main`, which has messages and exit codes of its own.
        with command.make_context(PROGRAM, words or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise _usage(error) from error
    return ExitCode.OK


def _usage(error: Any) -> Trouble:
    """An error of typer's about the arguments. Its classes moved between versions, its methods did not."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else PROGRAM
    return Trouble(
        error.format_message().strip() or "No command was given",
        ExitCode.USAGE,
        f"see `{path} --help`",
        {"code": "USAGE"},
    )


def _forget_stdout() -> None:
    """Keep the interpreter from complaining at its end about what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
