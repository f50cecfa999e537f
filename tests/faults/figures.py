"""Puts what was measured into a page: `python -m faults.figures PAGE REPORT`, both of them files.

The last column of a row says what came out of the fault that the column before names, if it names one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROW = re.compile(r"^(\|.*\| `([a-z0-9-]+)` \|) [^|]* \|$", re.MULTILINE)


def filled(page: str, lines: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with the figures of some faults; other rows stay as they are."""

    def row(found: re.Match[str]) -> str:
        line = lines.get(found[2])
        if line is None or not line["kept"]:
            return found[0]
        return f"{found[1]} {line['recovery']} s ({line['stall']} s) |"

    return _ROW.sub(row, page)


def main() -> None:
    """Change the page in place."""
    page, report = map(Path, sys.argv[1:])
    lines = {line["name"]: line for line in json.loads(report.read_text(encoding="utf-8"))}
    page.write_text(filled(page.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()
