"""What a report does to a task, for each outcome and each row."""

from collections.abc import Callable
from typing import Any

import pytest

from meshq.internal.v1 import ledger_service_pb2
from meshq.management.model.queues import RetryPolicy
from meshq.management.model.reports import (
    DONE,
    GONE,
    KEEP,
    LOST,
    POISON,
    SCHEDULE_TO_START,
    Directive,
    DirectiveKind,
    Finish,
    Outcome,
    Report,
    Retry,
    Rules,
    answer_to_start,
    certain_finish,
    decide,
    directive_for,
    retry_delay_ms,
)
from meshq.management.model.states import OPEN, TERMINAL, State
from meshq.management.model.task import TaskRow
from meshq.v1 import task_pb2

ID = bytes(range(16))
NOW = 1_800_000_000_000
STEADY = RetryPolicy(jitter=0.0)


def row(state: State, attempt: int = 1, max_attempts: int = 3, **more: Any) -> TaskRow:
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
        **more,
    )


def rules(policy: RetryPolicy = STEADY, poison_limit: int = 5) -> Callable[[TaskRow], Rules]:
    return lambda _: Rules(policy, poison_limit)


def decided(report: Report, row: TaskRow | None) -> Finish | Retry | Directive:
    return decide(report, row, NOW, rules())


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
        (Outcome.CANCELLED, State.CANCELLED),
    ],
)
@pytest.mark.parametrize("before", sorted(OPEN - {State.WAITING}))
def test_an_answer_of_the_worker_ends_the_task(outcome: Outcome, state: State, before: State) -> None:
    decision = decided(report(outcome), row(before))
    assert isinstance(decision, Finish)
    assert decision.state == state
    assert decision == certain_finish(report(outcome), NOW)


@pytest.mark.parametrize("before", sorted(OPEN - {State.WAITING, State.CANCELLING}))
def test_a_lost_attempt_is_followed_by_the_next(before: State) -> None:
    decision = decided(report(Outcome.LOST, attempt=2), row(before, attempt=2))
    assert isinstance(decision, Retry)
    assert (decision.attempt, decision.next_attempt, decision.ready_ms) == (2, 3, NOW)
    assert decision.state == State.PENDING
    assert decision.error_type == LOST


@pytest.mark.parametrize(
    ("max_attempts", "unanswered", "poison_limit"), [(1, 0, 5), (1, 0, 1), (3, 0, 5), (3, 1, 5), (7, 3, 5)]
)
def test_the_last_lost_attempt_fails_the_task(max_attempts: int, unanswered: int, poison_limit: int) -> None:
    standing = row(State.RUNNING, max_attempts, max_attempts, unanswered=unanswered)
    decision = decide(report(Outcome.LOST, max_attempts), standing, NOW, rules(poison_limit=poison_limit))
    assert isinstance(decision, Finish)
    assert (decision.state, decision.error_type) == (State.FAILED, LOST)
    assert decision.error_message


def test_losses_are_not_made_good_where_the_policy_says_so() -> None:
    policy = RetryPolicy(non_retryable=(LOST,))
    lost = decide(report(Outcome.LOST), row(State.RUNNING), NOW, rules(policy, poison_limit=1))
    assert isinstance(lost, Finish)
    assert (lost.state, lost.error_type) == (State.FAILED, LOST)


def test_a_lost_attempt_of_a_task_that_is_to_be_cancelled_ends_it() -> None:
    decision = decided(report(Outcome.LOST), row(State.CANCELLING))
    assert isinstance(decision, Finish)
    assert decision.state == State.CANCELLED


@pytest.mark.parametrize("state", sorted(TERMINAL))
@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST])
def test_an_ended_task_stays_what_it_is(state: State, outcome: Outcome) -> None:
    assert decided(report(outcome), row(state)) == DONE[state]
    assert DONE[state] == Directive(DirectiveKind.DONE, state=state)


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.LOST])
def test_a_report_of_an_earlier_attempt_hears_of_the_current_one(outcome: Outcome) -> None:
    decision = decided(report(outcome, attempt=1), row(State.PENDING, attempt=2))
    assert decision == Directive(DirectiveKind.RUN, 2, NOW - 5)
    assert directive_for(row(State.PENDING, attempt=2), NOW) == decision


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST])
def test_a_ledger_that_has_come_back_follows_the_attempts_that_were_made(outcome: Outcome) -> None:
    decision = decided(report(outcome, attempt=3), row(State.RUNNING, attempt=1))
    assert decision == Retry(ID, 1, 3, State.PENDING, NOW - 5, "", "")
    decision = decided(report(outcome, attempt=3), row(State.CANCELLING, attempt=1))
    ended = State.SUCCEEDED if outcome is Outcome.SUCCEEDED else State.CANCELLED
    assert isinstance(decision, Finish)
    assert (decision.attempt, decision.state) == (1, ended)


def test_an_unknown_task_is_gone() -> None:
    assert decided(report(Outcome.SUCCEEDED), None) == GONE
    assert directive_for(None, NOW) == GONE


@pytest.mark.parametrize("outcome", [Outcome.UNSPECIFIED, Outcome.LOST, Outcome.FAILED, Outcome.SNOOZED, 99])
def test_only_what_ends_any_task_is_certain(outcome: int) -> None:
    assert certain_finish(report(Outcome.LOST)._replace(outcome=outcome), NOW) is None


@pytest.mark.parametrize(
    ("end_ms", "filed"), [(NOW - 1, NOW - 1), (NOW + 99, NOW), (0, NOW), (NOW - 86_400_000, NOW)]
)
def test_an_end_is_filed_about_when_it_arrives(end_ms: int, filed: int) -> None:
    finish = certain_finish(report(Outcome.SUCCEEDED, end_ms=end_ms), NOW)
    assert finish is not None
    assert finish.end_ms == filed


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_a_failed_attempt_is_made_again_after_a_delay(outcome: Outcome) -> None:
    decision = decided(report(outcome, attempt=2, error_type="ValueError"), row(State.RUNNING, 2))
    assert isinstance(decision, Retry)
    assert (decision.next_attempt, decision.state, decision.ready_ms) == (3, State.RETRYING, NOW + 2_000)
    assert (decision.error_type, decision.spared, decision.unanswered) == ("ValueError", 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_the_last_failed_attempt_fails_the_task(outcome: Outcome) -> None:
    decision = decided(report(outcome, attempt=3, error_type="ValueError"), row(State.RUNNING, 3))
    assert isinstance(decision, Finish)
    assert (decision.state, decision.error_type) == (State.FAILED, "ValueError")


def test_spared_attempts_do_not_count() -> None:
    standing = row(State.RUNNING, 5, spared=3)
    decision = decided(report(Outcome.FAILED, attempt=5), standing)
    assert isinstance(decision, Retry)
    # Two attempts have failed, so that the delay has grown once.
    assert decision.ready_ms == NOW + 2_000
    assert isinstance(decided(report(Outcome.FAILED, attempt=5), standing._replace(spared=2)), Finish)


def test_a_worker_may_say_when_to_try_again_or_that_it_is_useless() -> None:
    later = report(Outcome.FAILED)._replace(retry_delay_ms=0)
    decision = decided(later, row(State.RUNNING))
    assert isinstance(decision, Retry)
    assert decision.ready_ms == NOW
    never = later._replace(non_retryable=True)
    assert isinstance(decided(never, row(State.RUNNING)), Finish)


def test_some_errors_are_not_tried_again() -> None:
    policy = RetryPolicy(non_retryable=("ValueError",))
    for error_type, kind in (("ValueError", Finish), ("KeyError", Retry)):
        failed = report(Outcome.FAILED, error_type=error_type)
        assert isinstance(decide(failed, row(State.RUNNING), NOW, rules(policy)), kind)


def test_snoozing_costs_nothing_and_is_no_end() -> None:
    snoozed = report(Outcome.SNOOZED, attempt=3)._replace(retry_delay_ms=60_000)
    decision = decided(snoozed, row(State.RUNNING, 3, unanswered=2))
    assert isinstance(decision, Retry)
    assert (decision.state, decision.ready_ms) == (State.SCHEDULED, NOW + 60_000)
    assert (decision.spared, decision.unanswered) == (1, 0)


def test_attempts_without_an_answer_add_up_to_poison() -> None:
    lost = report(Outcome.LOST, attempt=2)
    decision = decide(lost, row(State.RUNNING, 2, 9, unanswered=1), NOW, rules(poison_limit=3))
    assert isinstance(decision, Retry)
    assert decision.unanswered == 1
    decision = decide(lost, row(State.RUNNING, 2, 9, unanswered=2), NOW, rules(poison_limit=3))
    assert isinstance(decision, Finish)
    assert (decision.state, decision.error_type) == (State.FAILED, POISON)


@pytest.mark.parametrize(("max_attempts", "spared"), [(2, 0), (3, 0), (3, 4)])
def test_a_task_none_of_whose_attempts_was_answered_is_poison(max_attempts: int, spared: int) -> None:
    attempt = max_attempts + spared
    standing = row(State.RUNNING, attempt, max_attempts, spared=spared, unanswered=max_attempts - 1)
    decision = decided(report(Outcome.LOST, attempt), standing)
    assert isinstance(decision, Finish)
    assert (decision.state, decision.error_type) == (State.FAILED, POISON)
    assert decision.error_message.startswith(f"{max_attempts} attempts in a row ended without an answer")


def test_a_task_that_nobody_started_in_time_expires() -> None:
    late = report(Outcome.TIMED_OUT, error_type=SCHEDULE_TO_START)
    decision = decided(late, row(State.PENDING))
    assert isinstance(decision, Finish)
    assert decision.state == State.EXPIRED


@pytest.mark.parametrize(
    "outcome", [Outcome.FAILED, Outcome.LOST, Outcome.TIMED_OUT, Outcome.SNOOZED, Outcome.CANCELLED]
)
def test_whatever_ends_a_task_that_is_to_end_ends_it(outcome: Outcome) -> None:
    decision = decided(report(outcome), row(State.CANCELLING))
    assert isinstance(decision, Finish)
    assert decision.state == State.CANCELLED
    decision = decided(report(outcome), row(State.CANCELLING, ending=State.EXPIRED))
    assert isinstance(decision, Finish)
    # The ledger itself makes an end that is certain fit the wish.
    assert decision.state == (State.CANCELLED if outcome == Outcome.CANCELLED else State.EXPIRED)


def test_a_success_wins_over_the_wish_to_cancel() -> None:
    for ending in (None, State.EXPIRED):
        decision = decided(report(Outcome.SUCCEEDED), row(State.CANCELLING, ending=ending))
        assert isinstance(decision, Finish)
        assert decision.state == State.SUCCEEDED


def test_what_runs_much_later_waits_in_the_ledger() -> None:
    far = NOW + 5 * 60_000 + 1
    assert directive_for(row(State.RETRYING)._replace(ready_ms=far), NOW).kind == DirectiveKind.LATER
    assert directive_for(row(State.RETRYING)._replace(ready_ms=far - 1), NOW).kind == DirectiveKind.RUN


def test_a_start_that_is_said_again_is_as_good_as_the_first() -> None:
    start = report(Outcome.UNSPECIFIED)
    assert answer_to_start(start, row(State.RUNNING), NOW) == KEEP
    assert answer_to_start(start, row(State.CANCELLING), NOW) == KEEP
    assert answer_to_start(start, row(State.RUNNING, 2), NOW).kind == DirectiveKind.RUN
    assert answer_to_start(start, row(State.SUCCEEDED), NOW).kind == DirectiveKind.DONE
    assert answer_to_start(start, None, NOW) == GONE


def test_delays_grow_to_their_cap_and_vary_within_their_jitter() -> None:
    policy = RetryPolicy(initial_ms=100, multiplier=3.0, max_ms=1_500, jitter=0.5)
    assert [retry_delay_ms(policy, n, 0.5) for n in (1, 2, 3, 4, 99)] == [100, 300, 900, 1_000, 1_000]
    assert (retry_delay_ms(policy, 3, 0.0), retry_delay_ms(policy, 3, 1.0)) == (450, 1_350)
    # At the cap chance still spreads them, up to the longest delay and not beyond.
    assert (retry_delay_ms(policy, 4, 0.0), retry_delay_ms(policy, 4, 1.0)) == (500, 1_500)
    month = RetryPolicy(max_ms=30 * 86_400_000, multiplier=100.0, jitter=0.1)
    assert retry_delay_ms(month, 99, 1.0) == month.max_ms
    assert retry_delay_ms(RetryPolicy(initial_ms=0, multiplier=100.0), 99, 0.9) == 0
    assert retry_delay_ms(RetryPolicy(multiplier=100.0, jitter=0.0), 99, 0.9) == 600_000
