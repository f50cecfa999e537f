"""Registry, settings, credit and the session's bookkeeping: no I/O."""

import logging
from typing import Any

import pytest

from meshq.client.values import to_value
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import TaskRegistry, Worker, logs
from meshq.worker.__main__ import make_worker, parse
from meshq.worker.credit import MAX_PREFETCH, MAX_REST_SECONDS, REST_SECONDS, Credit
from meshq.worker.registry import Handler, Place, load
from meshq.worker.session.backoff import MAXIMUM, Backoff
from meshq.worker.session.leases import Leases
from meshq.worker.session.settings import SessionSettings
from meshq.worker.settings import parse_queues


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
            Handler("b", lambda: None, Place.PROCESS).reference()
        for wrong in ([ValueError()], ["ValueError"], [int]):
            with pytest.raises(TypeError, match="no_retry must hold classes of exceptions, not"):
                registry.add("b", fetch, no_retry=wrong)  # type: ignore[arg-type]

    def test_another_process_finds_a_handler_with_its_options(self) -> None:
        handler = Handler("x", logging.getLogger, Place.PROCESS, (KeyError,), auto_heartbeat=True)
        found = Handler.referred("x", handler.reference())
        assert (found.function, found.no_retry, found.auto_heartbeat) == (
            logging.getLogger,
            (KeyError,),
            True,
        )

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
            ({"queues": []}, "queues must be 1 to 256, not 0"),
            ({"queues": {"a": 0}}, "the weight of queue a must be an integer of 1 to 1,000, not 0"),
            ({"queues": {"a": 1.5}}, "the weight of queue a must be an integer"),
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
        settings = make_worker(parse(["--queues", "high=3,low"])).settings
        assert (settings.queues, settings.queue_weights) == (("high", "low"), {"high": 3, "low": 1})

    def test_queues_have_weights_once_one_of_them_has(self) -> None:
        assert parse_queues([]) == ("default",)
        assert parse_queues(["a", "b"]) == ("a", "b")
        assert parse_queues(["a=3", "b"]) == {"a": 3, "b": 1}
        with pytest.raises(ValueError, match="NAME or NAME=WEIGHT, not 'a=much'"):
            parse_queues(["a=much"])

    def test_session_settings_survive_the_pipe(self) -> None:
        settings = SessionSettings(
            target="h:1",
            worker_id="w",
            instance_key="00ff",
            task_types=("a",),
            queues=("q",),
            queue_weights={"q": 4},
            slots=3,
            labels={"k": "v"},
            held=("aa",),
            assigned=5,
        )
        assert SessionSettings.from_notice(settings.to_notice()) == settings
        hello = settings.hello([b"\xaa"]).hello
        assert (hello.instance_key, list(hello.held_leases), hello.slots) == (b"\x00\xff", [b"\xaa"], 3)
        assert dict(hello.queue_weights) == {"q": 4}


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
        # 167 a second at first sight, of which half is believed: 16 more.
        assert totals[:2] == [10, 36]
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

    def test_results_gather_for_longer_while_handlers_have_much_to_do(self) -> None:
        clock = Clock()
        credit = Credit(10, clock=clock)
        assert credit.rest() == REST_SECONDS
        for _ in range(8):
            clock.now += 0.1
            credit.assigned += 500
            credit.finish(500)
        assert credit.rest() == REST_SECONDS
        credit.assigned += 410
        assert credit.rest() == MAX_REST_SECONDS
        # As soon as they might run out of tasks the results go, with which the next ones come.
        credit.finish(300)
        assert credit.rest() == pytest.approx(0.01, rel=0.2)
        credit.finish(90)
        assert credit.rest() == REST_SECONDS

    def test_few_results_are_not_kept_back(self) -> None:
        clock = Clock()
        credit = Credit(10, clock=clock)
        for _ in range(8):
            clock.now += 0.1
            credit.assigned += 10
            credit.finish(10)
        credit.assigned += 30
        assert credit.rest() == REST_SECONDS

    def test_a_pause_announces_nothing(self) -> None:
        credit = Credit(10)
        credit.paused = True
        assert credit.top_up() is None
        credit.paused = False
        assert credit.top_up() == 10


def result(token: bytes, size: int = 1) -> pb.TaskResult:
    return pb.TaskResult(lease_token=token, success=pb.Success(data=b"x" * size))


def word(token: bytes, checkpoint: int) -> pb.LeaseProgress:
    return pb.LeaseProgress(lease_token=token, checkpoint=to_value(checkpoint))


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

    def test_the_latest_checkpoint_is_kept_as_long_as_its_lease(self) -> None:
        leases = Leases()
        leases.assign([b"a", b"b", b"c"])
        leases.note(word(token, step) for step in (1, 2) for token in (b"a", b"b", b"c", b"unknown"))
        leases.note([pb.LeaseProgress(lease_token=b"a", fraction=0.5)])
        leases.lose([b"c"])
        leases.report([result(b"b")])
        assert leases.checkpoints() == [word(b"a", 2), word(b"b", 2)]
        leases.acknowledge([pb.ResultAck(lease_token=b"b", status=pb.RESULT_STATUS_ACCEPTED)])
        assert leases.checkpoints() == [word(b"a", 2)]
        leases.welcome([pb.HeldLease(lease_token=b"a", kept=False)])
        assert leases.checkpoints() == []

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
