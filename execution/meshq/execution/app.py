"""Wires execution together; the only module that knows all of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import time
from typing import Any, Protocol

import grpc

from meshq.execution.attempts.announcer import Announcer
from meshq.execution.attempts.checkpoints import Checkpoints
from meshq.execution.attempts.completions import Completions
from meshq.execution.attempts.deferrals import Deferrals
from meshq.execution.attempts.expirer import Expirer, Makers
from meshq.execution.attempts.fence import Fence
from meshq.execution.attempts.leftovers import Leftovers
from meshq.execution.attempts.recorded import RecordedEnds
from meshq.execution.attempts.recorder import Recorder
from meshq.execution.attempts.reporter import Reporter
from meshq.execution.conversion.ledger import GrpcLedger
from meshq.execution.conversion.queues import decode_queue
from meshq.execution.conversion.results import closed, lost, with_error_text, withdrawn
from meshq.execution.inquiries import Inquiries
from meshq.execution.intake import Intake
from meshq.execution.news import NewsRoom, ProgressBoard
from meshq.execution.postgres.attempts import AttemptStore
from meshq.execution.postgres.checkpoints import CheckpointStore
from meshq.execution.postgres.database import Database
from meshq.execution.postgres.deferrals import DeferralStore
from meshq.execution.postgres.generation import GenerationTable
from meshq.execution.postgres.outages import OutageTable
from meshq.execution.postgres.outlook import Lookout
from meshq.execution.postgres.partitions import PartitionKeeper
from meshq.execution.postgres.queues import QueueStore
from meshq.execution.postgres.ring import RingTable
from meshq.execution.queues.configs import QueueConfigs
from meshq.execution.queues.handover import Handover
from meshq.execution.queues.homes import Homes, Queues
from meshq.execution.queues.strays import Strays
from meshq.execution.results import Results
from meshq.execution.ring.carrier import Carrier
from meshq.execution.ring.changes import RingChanges
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.follower import RingFollower
from meshq.execution.ring.gauges import Gauges
from meshq.execution.ring.generations import Generations
from meshq.execution.ring.keeper import Surroundings
from meshq.execution.ring.mover import Mover
from meshq.execution.ring.outages import REPORT_VALID_SECONDS, Outages
from meshq.execution.ring.servers import Servers
from meshq.execution.ring.shard import Held
from meshq.execution.ring.shards import Shards
from meshq.execution.servicers import attempt, dispatch, progress, ring, worker
from meshq.execution.servicers.explanations import Explanations
from meshq.execution.servicers.handlers import Handlers
from meshq.execution.servicers.workers import Workers
from meshq.execution.sessions.allocator import Allocator, Means
from meshq.execution.sessions.beats import Beats
from meshq.execution.sessions.polls import Polls
from meshq.execution.sessions.preparations import Preparations
from meshq.execution.sessions.receipts import Receipts
from meshq.execution.sessions.sessions import Sessions, Times
from meshq.execution.settings import ExecutionSettings
from meshq.execution.upkeep import Jobs, Upkeep
from meshq.internal.v1.attempt_service_pb2_grpc import add_AttemptServiceServicer_to_server
from meshq.internal.v1.dispatch_service_pb2_grpc import add_DispatchServiceServicer_to_server
from meshq.internal.v1.progress_service_pb2_grpc import add_ProgressServiceServicer_to_server
from meshq.mesh.election import Election, Office
from meshq.mesh.lifecycle import Background
from meshq.mesh.postgres.terms import OfficeRow
from meshq.mesh.process import App, ServedService, start_when_there
from meshq.v1.ring_service_pb2_grpc import add_RingServiceServicer_to_server


class Kit(Protocol):
    """What is used of the mesh kit."""

    settings: Any
    instance_id: str
    etcd: Any

    def channel(self) -> grpc.aio.Channel:
        """The mesh."""

    def direct(self, address: str) -> grpc.aio.Channel:
        """Straight to one process."""

    def peers(self, component: str) -> Any:
        """The processes of a component."""

    def election(self, office: Office) -> Election:
        """Who does what one instance does for all."""


async def build(kit: Kit) -> App:
    """The whole component, not started yet."""
    execution = Execution(kit)
    await start_when_there("the database of attempts", execution.database.start)
    return execution.app()


class Execution:
    """The parts of execution."""

    def __init__(self, kit: Kit) -> None:
        settings = kit.settings
        assert isinstance(settings, ExecutionSettings)
        times = Times(
            settings.lease_ttl, settings.heartbeat_interval, settings.delivery_timeout, settings.cancel_grace
        )
        self._instance_id = kit.instance_id
        self._peers = kit.peers(ExecutionSettings.component)
        self.database = Database(settings.database_url.get_secret_value())
        self.attempts = AttemptStore(self.database)
        ring_table = RingTable(self.database)
        self.generations = Generations(GenerationTable(self.database))
        self.doorbell = Doorbell()
        self.shards = Shards(kit.instance_id, self.doorbell, settings.passwords())
        self.follower = RingFollower(ring_table, kit.etcd, self.shards, settings.wanted_shards())
        ledger = GrpcLedger(kit.channel())
        self.reporter = Reporter(ledger, self.shards, self.attempts)
        self.recorder = Recorder(self.attempts, self.reporter, with_error_text)
        self.announcer = Announcer(ledger, self.reporter.apply)
        self.checkpoints = Checkpoints(CheckpointStore(self.database))
        deferral_store = DeferralStore(self.database)
        self.deferrals = Deferrals(deferral_store, self.shards, self.reporter)
        self._build_upkeep(kit, ledger)
        fence = Fence(lambda: self.generations.current.first_epoch, deferral_store.among)
        self.expirer = Expirer(
            self.shards,
            self.recorder,
            self.attempts,
            self.reporter,
            makers=Makers(closed, with_error_text),
            checkpoints=self.checkpoints,
        )
        self.preparations = Preparations(
            self.shards, self.announcer, self.checkpoints, times.delivery_timeout / 2
        )
        means = Means(
            self.shards, self.doorbell, self.preparations, int(times.delivery_timeout * 1000), times.lease_ms
        )
        self.sessions = Sessions(
            kit.instance_id,
            self.shards,
            Allocator(means),
            times,
            ended=self.attempts.ended,
            starts=self.reporter,
            on_ended=self.expirer.wake,
        )
        self.polls = Polls(
            self.shards,
            self.doorbell,
            self.preparations,
            ended=self.attempts.ended,
            starts=self.reporter,
            default_ms=times.lease_ms,
        )
        self.receipts = Receipts(self.shards, times.delivery_timeout)
        self.beats = Beats(self.shards)
        self.doorbell.sessions = self.sessions
        recorded = RecordedEnds(self.attempts, self.reporter, with_error_text)
        inquiries = Inquiries(
            self.shards, recorded, times.grace_ms, record=self.recorder.record, withdrawn=withdrawn
        )
        self.queues = QueueConfigs(QueueStore(self.database), decode_queue)
        intake = Intake(
            self.shards,
            recorded,
            self.queues,
            compare=inquiries.compare,
            record=self.recorder.record,
            lost=lost,
        )
        carrier = Carrier(intake.requeue)
        patience = times.lease_ms / 1000
        self.handover = Handover(self.queues, self.shards, Strays(carrier), patience=patience)
        self.homes = Homes(self.queues, self.shards, patience, self.handover, carrier)
        news = NewsRoom()
        self.board = board = ProgressBoard()
        workers = Workers(kit.instance_id, self.sessions, self.polls, self._others, kit.direct)
        self._worker = worker.WorkerServicer(
            self.sessions,
            self.polls,
            receipts=self.receipts,
            completions=Completions(
                self.recorder, self.shards, self.deferrals, self.checkpoints, board, fence=fence
            ),
            handlers=Handlers(news, board, self.checkpoints, self.beats),
            workers=workers,
        )
        self._dispatch = dispatch.DispatchServicer(
            intake,
            inquiries,
            workers,
            queues=Queues(self.queues, self.homes),
            explanations=Explanations(inquiries, workers, board, self._others, kit.direct),
        )
        self._progress = progress.ProgressServicer(news)
        self._attempt = attempt.AttemptServicer(
            self.attempts, Results(self.shards, self.queues.routing_key, self.attempts, _now_ms)
        )
        servers = Servers(kit.instance_id, settings.passwords())
        self._ring = ring.RingServicer(
            self.shards, RingChanges(ring_table, self.shards, self.follower, servers)
        )
        self.mover = Mover(self.shards, carrier)
        self.gauges = Gauges(self.shards)
        self.outages = Outages(
            kit.instance_id,
            self.shards,
            versions=ring_table,
            reports=OutageTable(self.database, REPORT_VALID_SECONDS),
            servers=servers,
            live=self._live,
            follow=self.follower.run_once,
            after=max(settings.shard_out_after, settings.lease_ttl),
        )
        self.shards.surround(
            Surroundings(
                next_epoch=ring_table.next_epoch,
                generations=self.generations,
                ended=self.attempts.ended,
                live=self._live,
                holders=self.sessions,
                compare=self._dispatch.ask_for_comparison,
                lease_ms=times.lease_ms,
                poll_ms=times.lease_ms,
                configs=self.homes.of_shard,
                others=self._held_by_others,
            )
        )

    def _build_upkeep(self, kit: Kit, ledger: GrpcLedger) -> None:
        """What one instance does for all."""
        row = OfficeRow(self.database.run, ExecutionSettings.component, kit.instance_id)
        self.office = kit.election(row)
        kept = self.database.under(self.office)
        self.partitions = PartitionKeeper(self.database, ledger.attempted, _now_ms, dropping=kept)
        self.leftovers = Leftovers(CheckpointStore(kept), ledger.open_among)
        jobs = Jobs(self.partitions, self.leftovers, self.deferrals)
        self.upkeep = Upkeep(Lookout(self.database).outlook, self.office, jobs)
        self.office.on_change(self.upkeep.office_changed)

    def app(self) -> App:
        """What the process runs."""
        return App(
            services=[
                ServedService(worker.NAME, self._worker.register),
                _served(ring.NAME, add_RingServiceServicer_to_server, self._ring),
                _served(dispatch.NAME, add_DispatchServiceServicer_to_server, self._dispatch),
                _served(progress.NAME, add_ProgressServiceServicer_to_server, self._progress),
                _served(attempt.NAME, add_AttemptServiceServicer_to_server, self._attempt),
            ],
            background=self._background(),
            drain=self.drain,
        )

    def _background(self) -> list[Background]:
        """In the order in which they start."""
        return [
            self.database,
            self.generations,
            self.partitions,
            self.reporter,
            self.recorder,
            self.announcer,
            self.checkpoints,
            self.queues,
            self.shards,
            self.follower,
            self.homes,
            self.handover,
            self.mover,
            self.outages,
            self.gauges,
            self.expirer,
            self.office,
            self.upkeep,
            self.receipts,
            self.beats,
            self.preparations,
            self.sessions,
            self.polls,
        ]

    async def drain(self) -> None:
        """Send workers and callers elsewhere; return when they have gone and all is reported."""
        self.polls.drain()
        await self.sessions.drain()
        self._dispatch.drain()
        self._progress.drain()
        await self.reporter.reported()

    async def _held_by_others(self, shard: str) -> list[Held]:
        """The leases on a shard that belong to no session."""
        return [*self.polls.held_on(shard), *await self.deferrals.held_on(shard)]

    def _live(self) -> list[str]:
        return list(self._peers.instances)

    def _others(self) -> dict[str, str]:
        return {
            name: instance.address
            for name, instance in self._peers.instances.items()
            if name != self._instance_id
        }


def _now_ms() -> int:
    return int(time() * 1_000)


def _served(name: str, add: Callable[[Any, Any], None], servicer: Any) -> ServedService:
    return ServedService(name, partial(add, servicer))
