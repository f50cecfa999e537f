"""Short ways to declare options that stay None unless they are given; their help says what counts then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from meshq.cli import inputs


def option(
    *names: str,
    help: str,  # noqa: A002 - as typer calls it
    metavar: str | None = None,
    parser: Callable[[str], Any] | None = None,
) -> Any:
    """An option of any kind."""
    return typer.Option(*names, metavar=metavar, parser=parser, help=help, show_default=False)


def duration(*names: str, help: str) -> Any:  # noqa: A002
    """An option that takes a length of time."""
    return option(*names, metavar="DURATION", parser=inputs.parse_span, help=help)


def pairs(*names: str, help: str) -> Any:  # noqa: A002
    """A repeatable option that takes KEY=VALUE; `inputs.parse_pairs` reads what was given."""
    return option(*names, metavar="KEY=VALUE", help=help)


def setting(*names: str, metavar: str, parser: Callable[[str], Any], help: str) -> Any:  # noqa: A002
    """An option that also takes `none`, which takes the setting back."""
    return option(*names, metavar=metavar, parser=inputs.or_none(parser), help=help)
