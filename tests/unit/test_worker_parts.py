"""Registry, context, outcomes, credit and the session's bookkeeping: no I/O."""

import dataclasses
import datetime as dt
import logging
from typing import Any

import pytest

from meshq.contract.limits import MAX_ERROR_MESSAGE_LENGTH, MAX_OUTPUT_CHUNK_BYTES, MAX_TRACEBACK_LENGTH
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import Task
from meshq.worker import Data, TaskCancelled, TaskContext, TaskFailure, TaskRegistry, Worker, logs, outcomes
from meshq.worker.__main__ import make_worker, parse
from meshq.worker.credit import MAX_PREFETCH, Credit
from meshq.worker.registry import Place, load, reference
from meshq.worker.session.backoff import MAXIMUM, Backoff
from meshq.worker.session.leases import Leases
from meshq.worker.session.settings import SessionSettings


class Heard:
    def __init__(self) -> None:
        self.progresses: list[pb.LeaseProgress] = []
        self.outputs: list[pb.LeaseOutput] = []

    def progress(self, progress: Any) -> None:
        self.progresses.append(progress)

    def output(self, output: Any) -> None:
        self.outputs.append(output)


def context(heard: Any = None) -> TaskContext:
    return TaskContext(
        Task(task_id="t", type="x", queue="q", headers={"a": "b"}), 2, b"lease", heard or Heard()
    )


class TestRegistry:
    def test_the_place_follows_from_the_function(self) -> None:
        registry = TaskRegistry()

        @registry.task()
        async def fetch() -> None: ...

        @registry.task("plain")
        def compute() -> None: ...

        registry.add("heavy", logging.getLogger, processes=True)
        places = {handler.type: handler.place for handler in registry}
        assert places == {"fetch": Place.LOOP, "plain": Place.THREAD, "heavy": Place.PROCESS}

    def test_bad_registrations_are_refused(self) -> None:
        registry = TaskRegistry()

        async def fetch() -> None: ...

        registry.add("a", fetch)
        with pytest.raises(ValueError, match="has a handler already"):
            registry.add("a", fetch)
        with pytest.raises(ValueError, match="must be 1 to 128"):
            registry.add("a b", fetch)
        with pytest.raises(TypeError, match="coroutine"):
            registry.add("b", fetch, processes=True)
        with pytest.raises(TypeError, match="top level"):
            reference(lambda: None)

    def test_registries_are_loaded_by_name(self) -> None:
        assert "word_count" in load("meshq.tasks").types
        assert load("meshq.tasks:registry") is load("meshq.tasks")
        for name in ("no.such.module", "meshq.tasks:word_count", "meshq.worker"):
            with pytest.raises(LookupError, match=name.partition(":")[0].partition(".")[0]):
                load(name)

    def test_registries_are_joined(self) -> None:
        worker = Worker(tasks=[load("meshq.tasks")])
        assert worker.registry.types == load("meshq.tasks").types
        with pytest.raises(ValueError, match="has a handler already"):
            worker.include(load("meshq.tasks"))


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"slots": 0}, "slots"),
            ({"queues": ["a b"]}, "'a b' must be"),
            ({"worker_id": "-"}, "'-' must be"),
            ({"processes": 0}, "processes"),
            ({"prefetch": -1}, "prefetch"),
        ],
    )
    def test_bad_settings_are_named(self, options: Any, named: Any) -> None:
        with pytest.raises(ValueError, match=named):
            Worker(**options)

    def test_a_worker_needs_a_handler(self) -> None:
        with pytest.raises(ValueError, match="at least one handler"):
            Worker().start()

    def test_the_command_line(self) -> None:
        options = parse(
            ["--queues", "a, b", "--slots", "7", "--id", "w1", "--label", "zone=x", "--target", "h:1"]
        )
        settings = make_worker(options).settings
        assert (settings.queues, settings.slots, settings.worker_id) == (("a", "b"), 7, "w1")
        assert (settings.labels, settings.target) == ({"zone": "x"}, "h:1")
        with pytest.raises(ValueError, match="KEY=VALUE"):
            make_worker(parse(["--label", "zone"]))

    def test_session_settings_survive_the_pipe(self) -> None:
        settings = SessionSettings(
            target="h:1",
            worker_id="w",
            instance_key="00ff",
            task_types=("a",),
            queues=("q",),
            slots=3,
            labels={"k": "v"},
            held=("aa",),
            assigned=5,
        )
        assert SessionSettings.from_notice(settings.to_notice()) == settings
        hello = settings.hello([b"\xaa"]).hello
        assert (hello.instance_key, list(hello.held_leases), hello.slots) == (b"\x00\xff", [b"\xaa"], 3)


class TestContext:
    def test_it_says_what_the_task_is(self) -> None:
        found = context()
        assert (found.task_id, found.type, found.queue, found.attempt) == ("t", "x", "q", 2)
        assert found.headers == {"a": "b"}

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
        found.raise_if_cancelled()
        assert not found.wait_cancelled(0)
        found.cancel("enough")
        assert found.cancelled
        assert found.wait_cancelled(10)
        with pytest.raises(TaskCancelled, match="enough"):
            found.raise_if_cancelled()


class TestOutcomes:
    def test_json_and_bytes(self) -> None:
        assert outcomes.success(b"l", {"n": 1}).success.result.struct_value.fields["n"].number_value == 1
        assert outcomes.success(b"l", b"\x00").success.data == b"\x00"
        found = outcomes.success(b"l", Data(b"png", "image/png")).success
        assert (found.data, found.content_type) == (b"png", "image/png")

    def test_nothing_is_a_success_without_output(self) -> None:
        result = outcomes.success(b"l", None)
        assert result.WhichOneof("outcome") == "success"
        assert result.success.WhichOneof("output") is None

    def test_what_pydantic_knows_becomes_json(self) -> None:
        @dataclasses.dataclass
        class Report:
            day: dt.date
            tags: set[str]

        fields = outcomes.success(b"l", Report(dt.date(2026, 1, 2), {"a"})).success.result.struct_value.fields
        assert fields["day"].string_value == "2026-01-02"
        assert fields["tags"].list_value.values[0].string_value == "a"

    @pytest.mark.parametrize(
        ("value", "kind", "named"),
        [
            ({"a": [object()]}, "INVALID_RESULT", r"result.a[0]: must be a JSON value, not object"),
            (float("nan"), "INVALID_RESULT", "finite"),
            ("x" * (1 << 20), "RESULT_TOO_LARGE", "must be at most 1,048,576 bytes"),
            (b"x" * ((1 << 20) + 1), "RESULT_TOO_LARGE", "must be at most"),
        ],
    )
    def test_results_that_cannot_be_reported_are_failures(self, value: Any, kind: Any, named: Any) -> None:
        error = outcomes.success(b"l", value).failure.error
        assert error.type == kind
        assert named in error.message

    def test_a_result_of_the_largest_size_is_taken(self) -> None:
        assert outcomes.success(b"l" * 60, b"x" * ((1 << 20) - 10)).HasField("success")

    def test_exceptions_have_a_type_a_message_and_a_traceback(self) -> None:
        def handler() -> None:
            raise KeyError("missing")

        try:
            handler()
        except KeyError as raised:
            error = outcomes.raised(b"l", raised).failure.error
        assert error.type == "KeyError"
        assert error.message == "'missing'"
        assert 'raise KeyError("missing")' in error.traceback
        assert "outcomes.raised" not in error.traceback

    def test_a_failure_of_its_own_has_its_type_and_no_traceback(self) -> None:
        error = outcomes.raised(b"l", TaskFailure("no funds", type="NO_FUNDS")).failure.error
        assert (error.type, error.message, error.traceback) == ("NO_FUNDS", "no funds", "")

    def test_texts_are_cut_and_made_valid(self) -> None:
        error = outcomes.failure(b"l", "E", "\ud800" + "m" * 9_000, "t" * 99_000 + "end").failure.error
        assert len(error.message) == MAX_ERROR_MESSAGE_LENGTH
        assert len(error.traceback) == MAX_TRACEBACK_LENGTH
        assert error.traceback.endswith("end")


class Clock:
    now = 0.0

    def __call__(self) -> Any:
        return self.now


class TestCredit:
    def test_all_slots_are_announced_at_first(self) -> None:
        credit = Credit(10, prefetch=0)
        assert credit.top_up() == 10
        assert credit.top_up() is None

    def test_more_comes_when_half_of_what_is_free_is_unannounced(self) -> None:
        credit = Credit(10, prefetch=0)
        credit.top_up()
        credit.assigned = 5
        credit.finish(4)
        assert credit.top_up() is None  # 5 are outstanding, 4 more could be.
        credit.finish(1)
        assert credit.top_up() == 15

    def test_a_single_slot_is_announced_at_once(self) -> None:
        credit = Credit(1, prefetch=0)
        assert credit.top_up() == 1
        credit.assigned = 1
        assert credit.top_up() is None
        credit.finish(1)
        assert credit.top_up() == 2

    def test_one_free_slot_among_long_tasks_is_not_kept_back(self) -> None:
        credit = Credit(100, prefetch=0)
        credit.top_up()
        credit.assigned = 100
        credit.finish(1)
        assert credit.top_up() == 101

    def test_short_tasks_are_fetched_ahead(self) -> None:
        clock = Clock()
        credit = Credit(10, clock=clock)
        totals = [credit.top_up()]
        for _ in range(40):
            clock.now += 0.06
            held = credit.granted - credit.assigned
            credit.assigned = credit.granted
            credit.finish(held)
            totals.append(credit.top_up())
        # 167 a second at first sight, of which half is believed: 8 more.
        assert totals[:2] == [10, 28]
        assert credit.granted - credit.assigned == 10 + MAX_PREFETCH

    def test_long_tasks_are_not(self) -> None:
        clock = Clock()
        credit = Credit(2, clock=clock)
        credit.top_up()
        for _ in range(10):
            clock.now += 1.0
            credit.assigned = credit.granted
            credit.finish(2)
            credit.top_up()
        assert credit.granted - credit.assigned == 2

    def test_a_pause_announces_nothing(self) -> None:
        credit = Credit(10)
        credit.paused = True
        assert credit.top_up() is None
        credit.paused = False
        assert credit.top_up() == 10


def result(token: bytes, size: int = 1) -> pb.TaskResult:
    return pb.TaskResult(lease_token=token, success=pb.Success(data=b"x" * size))


class TestLeases:
    def test_a_lease_is_held_until_its_result_is_recorded(self) -> None:
        leases = Leases()
        leases.assign([b"a", b"b", b"c"])
        leases.report([result(b"a"), result(b"b"), result(b"unknown")])
        assert leases.tokens == [b"a", b"b", b"c"]
        assert leases.unrecorded == 2
        again = leases.acknowledge(
            [
                pb.ResultAck(lease_token=b"a", status=pb.RESULT_STATUS_ACCEPTED),
                pb.ResultAck(lease_token=b"b", status=pb.RESULT_STATUS_TRY_LATER),
            ]
        )
        assert again == [b"b"]
        assert leases.tokens == [b"b", b"c"]
        leases.acknowledge([pb.ResultAck(lease_token=b"b", status=pb.RESULT_STATUS_LEASE_LOST)])
        assert leases.tokens == [b"c"]

    def test_a_new_session_drops_what_was_not_kept(self) -> None:
        leases = Leases([b"a"])
        leases.assign([b"b", b"c"])
        leases.report([result(b"c")])
        answers = [pb.HeldLease(lease_token=b"a", kept=True), pb.HeldLease(lease_token=b"c", kept=False)]
        assert leases.welcome(answers) == [b"b"]
        assert leases.tokens == [b"a"]

    def test_results_are_cut_into_frames(self) -> None:
        leases = Leases()
        tokens = [b"%d" % number for number in range(2_500)]
        leases.assign(tokens)
        leases.report(result(token) for token in tokens)
        assert [len(frame.results) for frame in leases.results()] == [1_000, 1_000, 500]
        assert [len(frame.results) for frame in leases.results([b"1", b"none"])] == [1]

    def test_large_results_have_frames_of_their_own(self) -> None:
        leases = Leases()
        leases.assign([b"a", b"b", b"c"])
        leases.report([result(b"a", 900_000), result(b"b", 900_000), result(b"c", 10)])
        assert [len(frame.results) for frame in leases.results()] == [1, 2]


def test_backoff_grows_and_begins_anew_after_a_steady_session() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    assert [backoff.after(0.0) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, MAXIMUM]
    assert backoff.after(60.0) == 0.1
    assert backoff.after(0.0, wanted=30.0) == 30.0


def test_log_lines_are_json_or_for_people() -> None:
    record = logging.makeLogRecord(
        {"name": "meshq.worker", "levelno": 20, "levelname": "INFO", "msg": "connected", "kept": 3}
    )
    line = logs.JsonFormatter("w1").format(record)
    assert '"message": "connected"' in line
    assert '"meshq": {"kept": 3}' in line
    assert logs.ConsoleFormatter().format(record).endswith("connected kept=3")
