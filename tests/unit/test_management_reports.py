"""What a report does to a task, for each outcome and each row."""

import pytest

from meshq.internal.v1 import ledger_service_pb2
from meshq.management.model.reports import (
    DONE,
    GONE,
    LOST,
    Directive,
    DirectiveKind,
    Finish,
    Outcome,
    Report,
    Retry,
    certain_finish,
    decide,
    directive_for,
)
from meshq.management.model.states import OPEN, TERMINAL, State
from meshq.management.model.task import TaskRow
from meshq.v1 import task_pb2

ID = bytes(range(16))
NOW = 1_800_000_000_000


def row(state: State, attempt: int = 1, max_attempts: int = 3) -> TaskRow:
    end_ms = NOW if state in TERMINAL else None
    return TaskRow(
        ID,
        "default",
        "q",
        "t",
        state,
        attempt,
        max_attempts,
        NOW - 5,
        None,
        end_ms,
        None,
        None,
        None,
        None,
        None,
    )


def report(outcome: Outcome, attempt: int = 1, end_ms: int = NOW, error_type: str = "") -> Report:
    return Report(ID, attempt, outcome, NOW - 10, end_ms, "w", error_type, "")


def test_the_numbers_are_those_of_the_contract() -> None:
    outcomes = {name.removeprefix("ATTEMPT_OUTCOME_"): n for name, n in task_pb2.AttemptOutcome.items()}
    assert {item.name: int(item) for item in Outcome} == outcomes
    kinds = {name.removeprefix("DIRECTIVE_KIND_"): n for name, n in ledger_service_pb2.DirectiveKind.items()}
    assert {item.name: int(item) for item in DirectiveKind} | {"UNSPECIFIED": 0} == kinds


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.SUCCEEDED, State.SUCCEEDED),
        (Outcome.FAILED, State.FAILED),
        (Outcome.CANCELLED, State.CANCELLED),
    ],
)
@pytest.mark.parametrize("before", sorted(OPEN - {State.WAITING}))
def test_an_answer_of_the_worker_ends_the_task(outcome: Outcome, state: State, before: State) -> None:
    decision = decide(report(outcome), row(before), NOW)
    assert isinstance(decision, Finish)
    assert decision.state == state
    assert decision == certain_finish(report(outcome), NOW)


@pytest.mark.parametrize("before", sorted(OPEN - {State.WAITING, State.CANCELLING}))
def test_a_lost_attempt_is_followed_by_the_next(before: State) -> None:
    decision = decide(report(Outcome.LOST, attempt=2), row(before, attempt=2), NOW)
    assert isinstance(decision, Retry)
    assert (decision.attempt, decision.next_attempt, decision.ready_ms) == (2, 3, NOW)
    assert decision.state == State.PENDING
    assert decision.error_type == LOST


@pytest.mark.parametrize(("attempt", "max_attempts"), [(1, 1), (3, 3)])
def test_the_last_lost_attempt_fails_the_task(attempt: int, max_attempts: int) -> None:
    standing = row(State.RUNNING, attempt, max_attempts)
    decision = decide(report(Outcome.LOST, attempt), standing, NOW)
    assert isinstance(decision, Finish)
    assert (decision.state, decision.error_type) == (State.FAILED, LOST)
    assert decision.error_message


def test_a_lost_attempt_of_a_task_that_is_to_be_cancelled_ends_it() -> None:
    decision = decide(report(Outcome.LOST), row(State.CANCELLING), NOW)
    assert isinstance(decision, Finish)
    assert decision.state == State.CANCELLED


@pytest.mark.parametrize("state", sorted(TERMINAL))
@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST])
def test_an_ended_task_stays_what_it_is(state: State, outcome: Outcome) -> None:
    assert decide(report(outcome), row(state), NOW) == DONE[state]
    assert DONE[state] == Directive(DirectiveKind.DONE, state=state)


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.LOST])
def test_a_report_of_an_earlier_attempt_hears_of_the_current_one(outcome: Outcome) -> None:
    decision = decide(report(outcome, attempt=1), row(State.PENDING, attempt=2), NOW)
    assert decision == Directive(DirectiveKind.RUN, 2, NOW - 5)
    assert directive_for(row(State.PENDING, attempt=2)) == decision


def test_an_unknown_task_is_gone() -> None:
    assert decide(report(Outcome.SUCCEEDED), None, NOW) == GONE
    assert directive_for(None) == GONE


@pytest.mark.parametrize("outcome", [Outcome.UNSPECIFIED, Outcome.LOST, 99])
def test_only_answers_of_workers_are_certain(outcome: int) -> None:
    assert certain_finish(report(Outcome.LOST)._replace(outcome=outcome), NOW) is None


@pytest.mark.parametrize(
    ("end_ms", "filed"), [(NOW - 1, NOW - 1), (NOW + 99, NOW), (0, NOW), (NOW - 86_400_000, NOW)]
)
def test_an_end_is_filed_about_when_it_arrives(end_ms: int, filed: int) -> None:
    finish = certain_finish(report(Outcome.SUCCEEDED, end_ms=end_ms), NOW)
    assert finish is not None
    assert finish.end_ms == filed
