"""`python -m meshq.local.bench.report RESULT... --page PAGE`: make the page anew from results in JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshq.local.bench.report.page import written


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m meshq.local.bench.report", description=__doc__)
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="what `--json` wrote; of a scenario that is in several the last one counts",
    )
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"), help="(%(default)s)")
    options = parser.parse_args(words)
    found: dict[str, Any] = {}
    for path in options.results:
        found |= json.loads(path.read_text(encoding="utf-8"))
    for line in written(options.page, found):
        print(line)  # noqa: T201 - a command line's answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
