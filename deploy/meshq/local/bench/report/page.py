"""Fills a page: rows by their names, and blocks between marks. All else stays as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meshq.bench.single import POINTS
from meshq.local.bench.report import peers
from meshq.local.bench.report.targets import Figures, rows

PICTURES = "pictures"
_ROW = re.compile(r"^(\|.*\| `([a-z0-9-]+)` \|)[^|]*\|[^|]*\|$", re.MULTILINE)
_BLOCK = re.compile(r"(<!-- measured: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, found: Figures, pictures: Sequence[str] = ()) -> str:
    """The page with what was found; rows and blocks of what was not measured stay as they are.

    Args:
        page: The page.
        found: Figures by scenario, and the machine.
        pictures: The files of the pictures that were drawn, relative to the page.
    """
    found = peers.with_peers(found)
    cells = rows(found)
    blocks = {
        "peers": peers.lines(found["peers"]),
        "machine": _machine(found.get("machine", {})),
        "way": _way(found.get("single", {})),
        "costs": _costs(found),
        "pictures": [f"![{Path(name).stem}]({name})" for name in pictures],
    }

    def row(match: re.Match[str]) -> str:
        found_cells = cells(match[2])
        return match[0] if found_cells is None else f"{match[1]} {found_cells[0]} | {found_cells[1]} |"

    def block(match: re.Match[str]) -> str:
        lines = blocks.get(match[2])
        return match[0] if not lines else f"{match[1]}\n" + "\n".join(lines) + f"\n\n{match[3]}"

    return _BLOCK.sub(block, _ROW.sub(row, page))


def written(path: Path, found: Figures) -> Iterator[str]:
    """Change a page in place and draw its pictures; yields what has been done, in words."""
    try:
        from meshq.local.bench.report.pictures import draw  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        yield f"No pictures were drawn: {error.name} is missing; pip install 'meshq[bench]' brings it."
        names: list[str] = []
    else:
        names = [f"{PICTURES}/{name}" for name in draw(path.parent / PICTURES, found)]
    path.write_text(filled(path.read_text(encoding="utf-8"), found, names), encoding="utf-8")
    yield f"{path} has what was measured, with {len(names)} pictures."


def by_kind(by_process: Mapping[str, float]) -> dict[str, float]:
    """CPU by kind of process: instances of the same kind together, the highest first."""
    kinds: dict[str, float] = {}
    for name, cost in by_process.items():
        kind = re.sub(r"-\d+$", "", name)
        kinds[kind] = kinds.get(kind, 0.0) + cost
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def _machine(machine: Mapping[str, Any]) -> list[str]:
    if not machine:
        return []
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items())]


def _way(single: Mapping[str, Any]) -> list[str]:
    points = single.get("points_ms", {})
    ordered = sorted(points.items(), key=lambda item: item[1]["p50"])
    if not ordered:
        return []
    head = ["| After the submission | p50 ms | p99 ms |", "|---|---|---|"]
    return head + [f"| {POINTS[name]} | {of['p50']:.2f} | {of['p99']:.2f} |" for name, of in ordered]


def _costs(found: Figures) -> list[str]:
    """Seconds of CPU per 1,000 tasks, a row for each kind of process and a column for each scenario."""
    costs = costs_of(found)
    if not costs:
        return []
    kinds = dict.fromkeys(kind for by in costs.values() for kind in by)
    head = "| | " + " | ".join(costs) + " |"
    lines = [head, "|---|" + "---|" * len(costs)]
    lines += [
        f"| {kind} | " + " | ".join(f"{by.get(kind, 0.0) / 1000:.3f}" for by in costs.values()) + " |"
        for kind in kinds
    ]
    totals = " | ".join(f"{sum(by.values()) / 1000:.3f}" for by in costs.values())
    return [*lines, f"| all | {totals} |"]


def costs_of(found: Figures) -> dict[str, dict[str, float]]:
    """Microseconds of CPU per task by kind of process, by scenario."""
    return {
        name: by_kind(figures["cpu_us_by_process"])
        for name, figures in found.items()
        if isinstance(figures, Mapping) and "cpu_us_by_process" in figures
    }
