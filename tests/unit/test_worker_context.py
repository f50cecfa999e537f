"""What a handler sees and says by its context, and how its words are put together."""

import datetime as dt
import threading
import time
from typing import Any

import pytest

from meshq.client.values import from_value, to_value
from meshq.contract.limits import MAX_OUTPUT_CHUNK_BYTES
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import Task
from meshq.worker import TaskCancelled, TaskContext
from meshq.worker.jobs import Board, Job, Stop, deadline
from meshq.worker.news import Words, frames, joined
from meshq.worker.pulse import Pulse
from meshq.worker.registry import Handler, Place


class Heard:
    def __init__(self) -> None:
        self.progresses: list[pb.LeaseProgress] = []
        self.outputs: list[pb.LeaseOutput] = []

    def progress(self, progress: Any) -> None:
        self.progresses.append(progress)

    def output(self, output: Any) -> None:
        self.outputs.append(output)

    def keep_alive(self, job: Any) -> None:
        raise AssertionError(job)


def assigned(**task: Any) -> pb.Assignment:
    spec = Task(task_id="t", type="x", queue="q", headers={"a": "b"}, max_attempts=5, **task)
    return pb.Assignment(task=spec, attempt=2, lease_token=b"lease\xff")


def context(heard: Any = None, **task: Any) -> TaskContext:
    return TaskContext(assigned(**task), heard or Heard())


class TestContext:
    def test_it_says_what_the_task_is(self) -> None:
        found = context()
        assert (found.task_id, found.type, found.queue, found.attempt) == ("t", "x", "q", 2)
        assert found.headers == {"a": "b"}
        found = context(labels={"c": "d"}, priority=7)
        assert (found.labels, found.priority, found.max_attempts) == ({"c": "d"}, 7, 5)
        assert (found.task.task_id, found.task.max_attempts) == ("t", 5)

    def test_the_lease_token_is_text(self) -> None:
        assert context().lease_token == "bGVhc2X_"

    def test_the_last_checkpoint_is_that_of_an_attempt_before(self) -> None:
        assert context().last_checkpoint is None
        assignment = assigned()
        assignment.checkpoint.CopyFrom(to_value({"step": 3}))
        assert TaskContext(assignment, Heard()).last_checkpoint == {"step": 3}

    def test_a_checkpoint_is_a_json_value_of_limited_size(self) -> None:
        heard = Heard()
        context(heard).checkpoint([1, "a"])
        assert from_value(heard.progresses[0].checkpoint) == [1, "a"]
        assert not heard.progresses[0].HasField("fraction")
        with pytest.raises(ValueError, match="checkpoint must be at most 65,536 bytes encoded, not 70,"):
            context().checkpoint("x" * 70_000)
        with pytest.raises(ValueError, match="must be a JSON value"):
            context().checkpoint(object())  # type: ignore[arg-type]

    def test_heartbeats_in_a_row_are_one(self) -> None:
        heard = Heard()
        found = context(heard)
        for _ in range(100):
            found.heartbeat()
        assert heard.progresses == [pb.LeaseProgress(lease_token=b"lease\xff")]

    def test_without_timeouts_there_is_no_deadline(self) -> None:
        assert (context().deadline, context().time_left()) == (None, None)

    def test_the_time_that_is_left(self) -> None:
        found = TaskContext(assigned(), Heard(), time.time() + 60)
        left = found.time_left()
        assert left is not None
        assert 50 < left <= 60
        assert found.deadline is not None
        assert found.deadline.tzinfo is dt.UTC
        assert TaskContext(assigned(), Heard(), 1.0).time_left() == 0.0

    def test_progress_is_checked(self) -> None:
        heard = Heard()
        context(heard).progress(0.5, "x" * 2_000, {"n": 1})
        assert len(heard.progresses[0].message) == 1_024
        assert heard.progresses[0].detail.struct_value.fields["n"].number_value == 1
        for fraction in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match="fraction must be"):
                context().progress(fraction)
        with pytest.raises(ValueError, match="detail must be at most"):
            context().progress(0.1, detail="x" * 20_000)

    def test_output_counts_the_bytes_of_each_stream(self) -> None:
        heard = Heard()
        found = context(heard)
        found.log("one")
        found.output(b"x" * (MAX_OUTPUT_CHUNK_BYTES + 1))
        found.log("two")
        assert [(item.stream, item.offset, len(item.chunk)) for item in heard.outputs] == [
            ("log", 0, 4),
            ("stdout", 0, MAX_OUTPUT_CHUNK_BYTES),
            ("stdout", MAX_OUTPUT_CHUNK_BYTES, 1),
            ("log", 4, 4),
        ]
        with pytest.raises(ValueError, match="stream must be"):
            found.output("x", stream="")

    def test_cancellation_reaches_who_looks(self) -> None:
        found = context()
        found.check_cancelled()
        assert not found.wait_cancelled(0)
        found.cancel("enough")
        assert found.cancelled
        assert found.wait_cancelled(10)
        with pytest.raises(TaskCancelled, match="enough"):
            found.check_cancelled()


class TestDeadline:
    def test_it_is_the_earlier_of_both_timeouts(self) -> None:
        task = Task()
        assert deadline(task, 1_000.0) is None
        task.start_to_close_timeout.FromMilliseconds(1_500)
        assert deadline(task, 1_000.0) == 1_001.5
        task.create_time.FromSeconds(900)
        task.schedule_to_close_timeout.FromSeconds(50)
        assert deadline(task, 1_000.0) == 950.0
        task.start_time.FromSeconds(2_000)
        assert deadline(task, 1_000.0) == 1_001.5
        task.start_time.FromSeconds(100)  # It had passed, which means at once.
        assert deadline(task, 1_000.0) == 950.0


def word(token: bytes = b"a", **fields: Any) -> pb.LeaseProgress:
    return pb.LeaseProgress(lease_token=token, **fields)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestWords:
    def test_the_newest_of_each_kind_stays(self) -> None:
        half, done = word(fraction=0.5, message="half"), word(fraction=1.0)
        first, second = word(checkpoint=to_value(1)), word(checkpoint=to_value(2))
        beat = word()
        assert joined(half, done) == done
        assert joined(half, beat) == half
        assert joined(beat, half) == half
        assert joined(first, second) == second
        both = word(fraction=0.5, message="half", checkpoint=to_value(1))
        assert joined(half, first) == joined(first, half) == joined(both, beat) == both
        assert joined(both, done) == word(fraction=1.0, checkpoint=to_value(1))

    def test_they_leave_together_every_tenth_of_a_second(self) -> None:
        clock = Clock()
        words = Words(clock)
        assert words.take() == []
        words.add(word(b"a"))
        assert words.take() == [word(b"a")]
        words.add(word(b"a", fraction=0.1))
        words.add(word(b"b"))
        words.add(word(b"a", fraction=0.2))
        assert words.take() == []
        assert words
        clock.now += 0.1
        assert words.take() == [word(b"a", fraction=0.2), word(b"b")]
        assert not words

    def test_those_of_a_lease_that_ends_leave_at_once(self) -> None:
        words = Words(Clock())
        words.add(word(b"a"))
        words.take()
        words.add(word(b"a", checkpoint=to_value(1)))
        words.add(word(b"b", fraction=0.5))
        words.add(word(b"c"))
        for token in (b"a", b"c", b"unknown"):
            words.end(token)
        assert words.take() == [word(b"a", checkpoint=to_value(1))]
        assert words.take(all_of_them=True) == [word(b"b", fraction=0.5)]

    def test_they_are_cut_into_frames_by_number_and_size(self) -> None:
        assert [len(frame.progress) for frame in frames(word() for _ in range(1_500))] == [1_000, 500]
        large = word(checkpoint=to_value("x" * 60_000))
        assert [len(frame.progress) for frame in frames(large for _ in range(20))] == [18, 2]


class TestPulse:
    def job(self, *, auto_heartbeat: bool) -> Job:
        assignment = assigned()
        assignment.task.heartbeat_timeout.FromMilliseconds(30)
        handler = Handler("x", lambda: None, Place.THREAD, auto_heartbeat=auto_heartbeat)
        return Job(assignment, handler, 0.0)

    def test_it_beats_until_the_job_has_ended(self) -> None:
        job, pulse = self.job(auto_heartbeat=True), Beats()
        job.claim()
        pulse.add(job)
        assert pulse.enough.wait(10.0)
        assert pulse.heard[0] == pb.LeaseProgress(lease_token=b"lease\xff")
        job.succeeded(None)
        pulse.wait_over()

    def test_it_beats_for_a_job_that_waits_for_its_handler(self) -> None:
        job, pulse = self.job(auto_heartbeat=False), Beats()
        pulse.add(job)
        assert pulse.enough.wait(10.0)
        job.claim()
        pulse.wait_over()

    def test_it_is_silent_about_a_job_that_never_begins(self) -> None:
        job, pulse, board = self.job(auto_heartbeat=False), Beats(), Board(lambda _result: None)
        board.add(job)
        pulse.add(job)
        board.finish(job, None)
        pulse.wait_over()

    def test_it_beats_once_for_a_handler_that_speaks_for_itself(self) -> None:
        job, pulse = self.job(auto_heartbeat=False), Beats()
        job.claim()
        pulse.add(job)
        pulse.wait_over()
        assert len(pulse.heard) == 1

    def test_it_is_silent_when_the_lease_was_lost(self) -> None:
        job, pulse = self.job(auto_heartbeat=True), Beats()
        job.claim()
        pulse.add(job)
        job.ask_to_stop(Stop.LEASE_LOST)
        pulse.wait_over()


class Beats:
    """A pulse and what it says."""

    def __init__(self) -> None:
        self.heard: list[pb.LeaseProgress] = []
        self.enough = threading.Event()
        self.add = Pulse(self._hear).add

    def _hear(self, beat: pb.LeaseProgress) -> None:
        self.heard.append(beat)
        if len(self.heard) == 3:
            self.enough.set()

    def wait_over(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "meshq-pulse":
                thread.join(10.0)
                assert not thread.is_alive()
