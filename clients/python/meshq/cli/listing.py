"""How one thing, or a list of things, is printed: as JSON, or drawn for people."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from meshq.cli import shapes
from meshq.cli.options import Session


def show(session: Session, item: Any, drawing: str) -> None:
    """Print one thing.

    Args:
        session: How to print.
        item: The thing.
        drawing: What draws it: a module of `meshq.cli` and its function.
    """
    if session.json:
        session.output.write_json(shapes.record(item))
    else:
        draw(session, item, drawing)


def show_many(session: Session, items: Sequence[Any], drawing: str, none: str) -> None:
    """Print things, one a row or line; a person reads `none` when there are none."""
    if session.json:
        for item in items:
            session.output.write_json(shapes.record(item))
    elif items:
        draw(session, items, drawing)
    else:
        session.output.say(none)


def draw(session: Session, what: Any | Iterable[Any], drawing: str, *, fits: bool = False) -> None:
    """Draw something, with `fits` for the width there is. The module is imported now: rich is slow."""
    module, _, function = drawing.partition(".")
    paint = getattr(importlib.import_module(f"meshq.cli.{module}"), function)
    options = {"width": session.output.console.width} if fits else {}
    session.output.draw(paint(what, **options))
