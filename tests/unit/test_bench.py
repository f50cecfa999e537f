"""The pure parts of measuring: figures, what a task comes by, and filling the page."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from meshq.bench.figures import Figures, percentile, ranged, spread, typical
from meshq.bench.single import Track, hops, offsets
from meshq.client import Task
from meshq.local.bench.__main__ import SCENARIOS
from meshq.local.bench.options import SIZES, parse
from meshq.local.bench.report.page import by_kind, filled
from meshq.local.bench.report.targets import NOT_MEASURED, TARGETS
from meshq.local.bench.shards import escaped, steps, times_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
ROW = re.compile(r"^\|.*\| `([a-z0-9-]+)` \|", re.MULTILINE)


def side(rate: float, ratio: float) -> dict[str, Any]:
    """One side of the comparison, as `make bench-peers` tells it."""
    values = {
        "throughput_per_s": rate,
        "meshq_ratio": ratio,
        "p50_ms": 2.0,
        "p99_ms": 5.0,
        "cpu_s_per_1000": 0.5,
    }
    told = {name: {"median": value, "range": [value - 1, value + 1]} for name, value in values.items()}
    return {"durable": "nothing", **told}


FOUND: dict[str, Any] = {
    "bulk": {
        "tasks": 100_000,
        "throughput_per_s": 13_456.7,
        "throughput_range": [11_000.2, 14_000.0],
        "cpu_us_by_process": {"management-1": 20.0, "management-2": 30.0, "worker": 40.0},
    },
    "accept": {
        "tasks": 2_000,
        "throughput_per_s": 23_000.0,
        "throughput_range": [2e4, 3e4],
        "host_took": 0.31,
    },
    "idle": {"cpu_percent": 3.46, "host_took": 0.004},
    "single": {"points_ms": {"event": {"p50": 4.0, "p99": 9.0}, "queued": {"p50": 1.5, "p99": 2.0}}},
    "machine": {"Python": "3.11"},
    "celery (redis)": side(790.0, 16.0),
    "huey": side(3_050.0, 4.5),
    "meshq": {name: value for name, value in side(13_000.0, 1.0).items() if name != "meshq_ratio"},
}


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 5), (51, 6), (99, 10), (100, 10)])
def test_percentiles_are_values_that_were_measured(percent: float, value: float) -> None:
    assert percentile(range(1, 11), percent) == value
    assert percentile([], percent) == 0.0


def test_a_spread_takes_values_in_any_order() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"p50": 2.0, "p99": 3.0, "max": 3.0}


def test_several_spreads_are_told_by_the_median_of_each_percentile() -> None:
    spreads = [{"p50": 1.0, "p99": 9.0}, {"p50": 3.0, "p99": 5.0}, {"p50": 2.0, "p99": 7.0}]
    assert typical(spreads) == {"p50": 2.0, "p99": 7.0}


def test_runs_are_told_by_their_median_and_range() -> None:
    told = ranged("throughput_per_s", [9.0, 1.0, 2.0])
    assert told == {"throughput_per_s": 2.0, "throughput_range": [1.0, 9.0]}


def test_throughput_counts_what_succeeded() -> None:
    assert Figures.of(10, [], 2.0).throughput == 0.0
    assert Figures(tasks=10, lost=2, seconds=4.0, p50=0.0, p99=0.0).throughput == 2.0


def track(**times: float) -> Track:
    return Track(Task(task_id="t", type="t", queue="q"), 100.0, times)


def test_points_are_told_from_the_submission_and_hops_from_point_to_point() -> None:
    found = [track(queued=100.001, accepted=100.002, event=100.004), track(queued=100.001, event=100.004)]
    points = offsets(found)
    assert {name: of["p50"] for name, of in points.items()} == {"accepted": 2.0, "queued": 1.0, "event": 4.0}
    assert hops(points) == [("queued", 1.0), ("event", 3.0)]


def test_the_steps_of_a_task_are_found_in_what_a_shard_says() -> None:
    task_id = uuid.UUID(bytes=b'\x01"\\\n\x7f 3456789abcde'[:16])
    name = escaped(task_id.bytes)
    assert name == '\\x01\\"\\\\\\n\\x7f 3456789abc'[: len(name)]
    said = [
        f'+1.5 [0 lua] "HSET" "mq:task:{name}" "attempt" "1" "state" "ready" "lane" "x"',
        f'+2.5 [0 lua] "HSET" "mq:task:{name}" "state" "leased" "lease" "1:2"',
        f'+3.0 [0 lua] "HSET" "mq:task:{name}" "state" "leased" "lease" "1:3"',
        '+3.1 [0 lua] "HSET" "mq:task:other" "state" "leased"',
        f'+3.5 [0 lua] "DEL" "mq:task:{name}" "mq:spec:{name}"',
        f'+4.0 [0 127.0.0.1:1] "EVALSHA" "{name}"',
    ]
    found = steps("\r\n".join(said).encode())
    assert times_of(str(task_id), found) == {"queued": 1.5, "leased": 2.5, "settled": 3.5}
    assert times_of(str(uuid.uuid4()), found) == {}


def test_processes_of_a_kind_are_told_together() -> None:
    assert by_kind(FOUND["bulk"]["cpu_us_by_process"]) == {"management": 50.0, "worker": 40.0}


def test_a_page_gets_what_was_measured_and_keeps_the_rest() -> None:
    page = PAGE.read_text(encoding="utf-8")
    empty = re.sub(r"(`[a-z0-9-]+` \|)[^|\n]*\|[^|\n]*\|", r"\1 - | - |", page)
    once = filled(empty, FOUND, ["pictures/cpu.svg"])
    assert "`bulk` | 13,457/s (11,000 to 14,000) | yes |" in once
    assert "`idle-cpu` | 3.5 % | no |" in once
    assert (
        "`accept` | 23,000/s (20,000 to 30,000), with 2,000; the host took 31 % of the time | yes |" in once
    )
    assert f"`calls` | {NOT_MEASURED} | {NOT_MEASURED} |" in once
    assert "| Python | 3.11 |" in once
    assert once.index("queued on its shard | 1.50 | 2.00 |") < once.index(
        "hears of the outcome | 4.00 | 9.00 |"
    )
    assert "| management | 0.050 |" in once
    assert "![cpu](pictures/cpu.svg)" in once
    assert "`peers-celery` | 16.0 times (15.0 to 17.0) | yes |" in once
    assert "`peers-fastest` | 4.5 times (3.5 to 5.5) | yes |" in once
    assert once.index("| meshq | nothing | 13,000 ") < once.index(
        "| huey | nothing | 3,050 (3,049 to 3,051) |"
    )
    assert filled(once, FOUND, ["pictures/cpu.svg"]) == once
    assert filled(once, {}) == once


def test_every_target_has_a_row_and_every_row_a_target() -> None:
    assert ROW.findall(PAGE.read_text(encoding="utf-8")) == list(TARGETS)


def test_every_target_is_of_a_scenario() -> None:
    assert {target.path.partition(".")[0] for target in TARGETS.values()} <= {*SCENARIOS, "peers"}


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from meshq.local.bench.report.pictures import draw

    assert sorted(draw(tmp_path, FOUND)) == ["cpu.svg", "peers.svg", "throughput.svg"]
    assert list(draw(tmp_path, {})) == []
    assert (tmp_path / "cpu.svg").read_text().count("management") == 1


def test_the_command_line_knows_all_scenarios_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["a", "b"], ["a"], []).scenarios == ["a"]
    options = parse(["a", "b"], ["a"], ["all", "--tasks", "7"])
    assert (options.scenarios, options.tasks) == (["a", "b"], 7)
    assert {name: getattr(options, name) for name in SIZES if name != "tasks"} == {
        name: default for name, (default, _) in SIZES.items() if name != "tasks"
    }
    with pytest.raises(SystemExit):
        parse(["a"], ["a"], ["c"])
    assert "not 'c'" in capsys.readouterr().err
