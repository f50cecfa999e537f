"""What the comparison with other task queues makes of its runs, and what it knows of its peers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from bench.peers.__main__ import parse
from bench.peers.adapters.shape import concurrently, word_count
from bench.peers.catalogue import PEERS, Peer
from bench.peers.driver import ADAPTER_FOLDER
from bench.peers.environment import REQUIREMENTS
from bench.peers.play import MESHQ_SHARE, entries
from bench.peers.report import Run, Side, figures, tables

RUN = Run(tasks=1000, seconds=2.0, cpu=0.5, waits=(3.0, 1.0, 2.0), lost=0)


def side(name: str, *seconds: float, setting: str = "usual") -> Side:
    runs = {number: replace(RUN, seconds=passed) for number, passed in enumerate(seconds)}
    return Side(name, setting, "nothing", runs)


def test_a_run_tells_rate_cost_and_waits() -> None:
    assert (RUN.rate, RUN.cpu_per_thousand) == (500.0, 0.5)
    assert (RUN.wait(50), RUN.wait(99)) == (2.0, 3.0)


def test_ratios_compare_runs_of_the_same_round() -> None:
    found = figures([side("meshq", 1.0, 2.0, 4.0), side("celery", 10.0, 10.0, 10.0)])
    assert found["celery"]["meshq_ratio"] == {"median": 5.0, "range": [2.5, 10.0]}
    assert "meshq_ratio" not in found["meshq"]


def test_a_round_that_failed_is_left_out_of_the_ratio() -> None:
    whole, failed = side("meshq", 1.0, 2.0), side("rq", 10.0, 10.0)
    found = figures([whole, replace(failed, runs={1: failed.runs[1]}, failures=("no answer",))])
    assert found["rq"]["meshq_ratio"]["range"] == [5.0, 5.0]
    assert found["rq"]["failures"] == ["no answer"]


def test_a_side_that_always_failed_is_shown() -> None:
    sides = [side("meshq", 1.0), replace(side("rq"), failures=("no answer",))]
    assert [table.row_count for table in tables(sides)] == [2, 2]


def test_one_peer_in_several_settings_is_told_apart() -> None:
    sides = [side("meshq", 1.0), side("huey", 2.0, setting="threads"), side("huey", 4.0, setting="processes")]
    assert list(figures(sides)) == ["meshq", "huey (threads)", "huey (processes)"]


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_can_be_played(peer: Peer) -> None:
    assert (ADAPTER_FOLDER / f"{peer.adapter}.py").exists()
    assert all("==" in line for line in (REQUIREMENTS / f"{peer.adapter}.txt").read_text().splitlines())
    assert len({setting.name for setting in peer.settings}) == len(peer.settings) >= 2
    assert all(setting.workers for setting in peer.settings)
    assert 0 < peer.share <= MESHQ_SHARE


async def test_items_are_acted_on_so_many_at_a_time_and_results_keep_their_order() -> None:
    running: list[int] = []
    most = 0

    async def act(number: int) -> int:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(number)
        return number * 2

    assert await concurrently(act, range(10), callers=3) == list(range(0, 20, 2))
    assert most == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (list(PEERS), 20_000)),
        (["huey", "--tasks", "7"], (["huey"], 7)),
        (["--quick"], (list(PEERS), 400)),
    ],
)
def test_the_command_line_chooses_peers_and_sizes(
    arguments: Sequence[str], expected: tuple[list[str], int]
) -> None:
    options = parse(arguments)
    assert (options.peers, options.tasks) == expected


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(SystemExit):
        parse(["sidekiq"])


def test_the_work_is_that_of_meshq() -> None:
    from meshq.tasks import word_count as ours

    assert word_count("one two three") == ours("one two three") == {"word_count": 3}


def test_all_settings_are_sides_of_their_own_only_when_asked_for() -> None:
    assert [side.label for side in entries(["huey"])][1:] == [f"huey, {PEERS['huey'].settings[0].name}"]
    assert len(entries(["huey"], all_settings=True)) == 1 + len(PEERS["huey"].settings)


def test_the_report_has_what_the_trials_reached() -> None:
    tried = replace(side("huey", 2.0), tried={"threads": 10.04, "processes": 20.0})
    assert figures([tried])["huey"]["tried"] == {"threads": 10.0, "processes": 20.0}
