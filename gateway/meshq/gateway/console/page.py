"""The status page, made on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import jinja2

from meshq.gateway.console.health import Health
from meshq.gateway.console.view import COMPONENTS, Overview

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_KIB: Final = 1024


@dataclass(frozen=True)
class Page:
    """What one rendering shows.

    Attributes:
        overview: What the mesh told.
        health: How it is judged.
        edge: Where the edge listens.
        instance_id: The gateway that made the page.
        version: Its version of meshq.
    """

    overview: Overview
    health: Health
    edge: str
    instance_id: str
    version: str


def render(page: Page) -> str:
    """The whole page."""
    return _ENVIRONMENT.get_template("page.html").render(_variables(page))


def render_status(page: Page) -> str:
    """Only what changes, to be put into a page that is open."""
    return _ENVIRONMENT.get_template("status.html").render(_variables(page))


def asset(name: str) -> str:
    """A file that the page refers to."""
    return (resources.files(__package__) / "assets" / name).read_text("utf-8")


def _variables(page: Page) -> Mapping[str, Any]:
    return {"page": page, "overview": page.overview, "health": page.health, "components": COMPONENTS}


def duration(seconds: float | None) -> str:
    """A time in its largest unit: `42 s`, `7 min`, `3 h`, `12 d`."""
    if seconds is None:
        return "\N{EN DASH}"
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits are enough


def size(count: float) -> str:
    """A number of bytes in its largest unit: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"


def number(count: float) -> str:
    """A count with thin spaces between thousands; a rate with one digit after the point."""
    return (
        f"{count:,.0f}".replace(",", "\u202f")
        if count == int(count)
        else f"{count:,.1f}".replace(",", "\u202f")
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "size": size, "number": number}
    return environment


_ENVIRONMENT: Final = _environment()
