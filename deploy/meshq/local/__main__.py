"""`python -m meshq.local up`: the commands of the local system without the rest of the CLI."""

import typer

from meshq.local.commands import register


def main() -> None:
    """Run the commands."""
    app = typer.Typer(name="meshq", no_args_is_help=True, add_completion=False)
    register(app)
    app()


if __name__ == "__main__":
    main()
