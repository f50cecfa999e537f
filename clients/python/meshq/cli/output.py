"""Where results and words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported when something is drawn
    from rich.console import Console, RenderableType


@dataclass(frozen=True)
class Output:
    """How to print: as JSON or for people, with colours or without."""

    json: bool = False
    color: bool = True

    @functools.cached_property
    def console(self) -> Console:
        """Standard output, for people."""
        from meshq.cli.terminal import console  # noqa: PLC0415

        return console(sys.stdout, color=self.color)

    @functools.cached_property
    def words(self) -> Console:
        """Standard error, for people."""
        from meshq.cli.terminal import console  # noqa: PLC0415

        return console(sys.stderr, color=self.color)

    def write_json(self, shape: Any) -> None:
        """Print one JSON object on a line of its own, at once."""
        sys.stdout.write(json_line(shape))
        sys.stdout.flush()

    def write(self, text: str) -> None:
        """Print text and a newline at once; as it is into a pipe, made printable on a terminal."""
        sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + "\n")
        sys.stdout.flush()

    def tell(self, shape: Any, sentence: str) -> None:
        """Print what a command has done: its shape as JSON, or for people a sentence."""
        if self.json:
            self.write_json(shape)
        else:
            self.write(sentence)

    def write_bytes(self, data: bytes) -> None:
        """Print bytes as they are."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def say(self, sentence: str) -> None:
        """Tell a person something that is no part of the result."""
        sys.stdout.flush()
        sys.stderr.write(printable(sentence) + "\n")

    def draw(self, drawing: RenderableType) -> None:
        """Print something drawn by rich; into a pipe without the blanks that fill its lines."""
        if self.console.is_terminal:
            self.console.print(drawing)
            return
        with self.console.capture() as captured:
            self.console.print(drawing)
        self.write("\n".join(line.rstrip() for line in captured.get().splitlines()))


def json_line(shape: Any) -> str:
    """A value as JSON on one line, readable in any script."""
    return json.dumps(shape, ensure_ascii=False, separators=(",", ":")) + "\n"


def printable(text: str) -> str:
    """Text without what a terminal would obey: control characters are shown, but for newlines and tabs."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )
