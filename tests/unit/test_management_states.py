"""The table of states, exhaustively."""

import itertools

import pytest

from meshq.management.model.states import MOVES, OPEN, RANK, STARTABLE, TERMINAL, State, allowed, newer
from meshq.v1 import task_pb2


def test_the_numbers_are_those_of_the_contract() -> None:
    contract = {name.removeprefix("TASK_STATE_"): number for name, number in task_pb2.TaskState.items()}
    assert {state.name: int(state) for state in State} | {"UNSPECIFIED": 0} == contract


def test_every_state_has_its_moves_and_rank() -> None:
    assert set(MOVES) == set(State) == set(RANK)
    assert set(State) == TERMINAL | OPEN
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED} == TERMINAL


@pytest.mark.parametrize(("before", "after"), list(itertools.product(sorted(TERMINAL), State)))
def test_a_terminal_state_never_changes(before: State, after: State) -> None:
    assert not allowed(before, after)


@pytest.mark.parametrize("state", sorted(OPEN))
def test_every_open_state_leads_to_an_end(state: State) -> None:
    reached = {state}
    while more := {after for before in reached for after in MOVES[before]} - reached:
        reached |= more
    assert reached & TERMINAL
    assert State.CANCELLED in reached


@pytest.mark.parametrize(("before", "after"), [(a, b) for a in State for b in MOVES[a]])
def test_a_move_goes_up_in_rank_or_begins_an_attempt(before: State, after: State) -> None:
    assert RANK[after] > RANK[before] or after in {State.RETRYING, State.PENDING, State.SCHEDULED}


def test_nothing_but_an_end_follows_cancelling() -> None:
    assert MOVES[State.CANCELLING] == TERMINAL
    assert State.CANCELLING not in STARTABLE


def test_what_waits_for_others_was_never_at_a_worker() -> None:
    assert not MOVES[State.WAITING] & {State.RUNNING, State.SUCCEEDED, State.FAILED, State.RETRYING}


def test_newer_compares_attempts_first() -> None:
    assert newer(2, State.PENDING, 1, State.RUNNING)
    assert newer(1, State.SUCCEEDED, 1, State.CANCELLING)
    assert not newer(1, State.SUCCEEDED, 2, State.PENDING)
    assert not newer(1, State.RUNNING, 1, State.RUNNING)
    assert not newer(1, State.FAILED, 1, State.SUCCEEDED)
