"""How one thing, or a list of things, is printed: as JSON, or drawn by `meshq.cli.render`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshq.cli import shapes
from meshq.cli.options import Session


def show(session: Session, item: Any, drawing: str) -> None:
    """Print one thing.

    Args:
        session: How to print.
        item: The thing.
        drawing: The function of `meshq.cli.render` that draws it.
    """
    if session.json:
        session.output.write_json(shapes.record(item))
    else:
        _draw(session, item, drawing)


def show_many(session: Session, items: Sequence[Any], drawing: str, none: str) -> None:
    """Print things, one a row or line; a person reads `none` when there are none."""
    if session.json:
        for item in items:
            session.output.write_json(shapes.record(item))
    elif items:
        _draw(session, items, drawing)
    else:
        session.output.say(none)


def _draw(session: Session, what: Any, drawing: str) -> None:
    from meshq.cli import render  # noqa: PLC0415  (rich)

    session.output.draw(getattr(render, drawing)(what))
