"""Everything put together; the one module that knows all parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import random
from typing import Final, Protocol, cast

import grpc

from meshq.contract.ids import make_ids_by
from meshq.internal.v1 import commit_service_pb2_grpc, ledger_service_pb2_grpc
from meshq.management.admission import Admission
from meshq.management.bulk import Bulk
from meshq.management.cancel import Canceller
from meshq.management.chains import ChainReleaser
from meshq.management.clock import LedgerClock
from meshq.management.conversion.queue_settings import decoded_settings, encoded_settings
from meshq.management.conversion.redrives import redriven_task
from meshq.management.conversion.traits import retry_policy
from meshq.management.create import Creator
from meshq.management.delete import Deleter
from meshq.management.dispatch.deadlines import DeadlineKeeper
from meshq.management.dispatch.outbox import Outbox
from meshq.management.dispatch.promote import Promoter
from meshq.management.dispatch.sweep import Sweeper
from meshq.management.finish import Finisher
from meshq.management.forget import KeyForgetter
from meshq.management.housekeeping import Housekeeping
from meshq.management.lookout import Lookout
from meshq.management.model.reports import Rules
from meshq.management.model.task import TaskRow
from meshq.management.postgres.database import Database
from meshq.management.postgres.ledger import PostgresLedger
from meshq.management.postgres.queues import PostgresQueues
from meshq.management.queues.book import QueueBook
from meshq.management.queues.changes import QueueChanges
from meshq.management.queues.figures import QueueFigures
from meshq.management.queues.purge import Purger
from meshq.management.queues.revival import Revival
from meshq.management.queues.store import Codec
from meshq.management.queues.watch import QueueWatches
from meshq.management.redrive import Redriver
from meshq.management.servicers.commits import CommitServicer
from meshq.management.servicers.ledger import LedgerServicer
from meshq.management.servicers.parts import TaskParts
from meshq.management.servicers.queues import QueueServicer
from meshq.management.servicers.tasks import TaskServicer
from meshq.management.servicers.views import Views
from meshq.management.servicers.waiting import Waiting
from meshq.management.settings import ManagementSettings
from meshq.management.stubs.attempts import Attempts
from meshq.management.stubs.commits import CommitLink
from meshq.management.stubs.configure import ConfigureLink, Configurer
from meshq.management.stubs.dispatch import DispatchLink
from meshq.management.stubs.fleet import Fleet
from meshq.management.stubs.placement import Placement
from meshq.management.stubs.progress import ProgressLink
from meshq.management.update import Updater
from meshq.management.watch.bus import Bus
from meshq.management.watch.commits import CommitLog
from meshq.management.watch.feed import Feed
from meshq.management.watch.fresh import FreshContent
from meshq.management.watch.watchers import Watchers
from meshq.mesh.directory import Instance, InstanceDirectory
from meshq.mesh.election import Election, Office
from meshq.mesh.lifecycle import Background, Repeater
from meshq.mesh.postgres.terms import OfficeRow
from meshq.mesh.process import App, ServedService, start_when_there
from meshq.mesh.telemetry import logger
from meshq.v1 import queue_service_pb2_grpc, task_service_pb2_grpc

_log = logger(__name__)

_COUNT_SECONDS: Final = 1.0


class Mesh(Protocol):
    """The part of `meshq.mesh.process.Kit` that management uses."""

    @property
    def instance_id(self) -> str:
        """This process."""

    def election(self, office: Office) -> Election:
        """Who keeps the ledger."""

    def channel(self) -> grpc.aio.Channel:
        """The mesh as a whole."""

    def direct(self, address: str) -> grpc.aio.Channel:
        """Straight to one process."""

    def peers(self, component: str) -> InstanceDirectory:
        """The processes of a component."""


async def build(kit: Mesh, settings: ManagementSettings) -> App:
    """Connect to the ledger and build the component.

    Raises:
        StartupError: The database does not answer, or is newer than this code.
    """
    database = Database(
        settings.database_url.get_secret_value(),
        writers=2 * settings.ledger_writers + 1,
        readers=settings.ledger_readers,
    )
    await start_when_there("the ledger", database.start)
    management = Management(kit, settings, database)
    make_ids_by(management.clock)
    return management.app()


class Management:
    """The parts and their wiring.

    Args:
        kit: The mesh.
        settings: The settings.
        database: Connected.
        now_ms: The clock, if it is not to be the ledger's.
    """

    def __init__(
        self,
        kit: Mesh,
        settings: ManagementSettings,
        database: Database,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._kit = kit
        self._settings = settings
        self._database = database
        self.clock = LedgerClock(database.now_ms)
        self.now_ms = now_ms = now_ms or self.clock
        self.ledger = PostgresLedger(database, now_ms)
        row = OfficeRow(database.run, ManagementSettings.component, kit.instance_id)
        self.office = kit.election(row)
        self.lookout = Lookout(self.ledger, self.office, settings.sweep_age)
        self.office.on_change(self.lookout.office_changed)
        self.kept = PostgresLedger(database.under(self.office), now_ms)
        self.queue_store = PostgresQueues(database, Codec(encoded_settings, decoded_settings))
        self.book = QueueBook(self.queue_store)
        self.bus = Bus()
        self.commits = CommitLog(self.bus)
        self.fresh = FreshContent()
        self.outbox = Outbox()
        self._build_use_cases()
        self._build_streams()
        self._build_queues()
        self._build_upkeep()

    def _build_use_cases(self) -> None:
        settings = self._settings
        self._placement = Placement(self._kit.channel())
        self._attempts = Attempts(self._kit.channel())
        self.admission = Admission(self.book, self.queue_store)
        self.chains = ChainReleaser(
            self.ledger, self.lookout, self.outbox.offer, self.commits.committed, self.now_ms
        )
        self.finisher = Finisher(
            self.ledger,
            self.commits,
            self.now_ms,
            rules=self._rules,
            chains=self.chains,
            lanes=settings.ledger_writers,
        )
        self.canceller = Canceller(
            self.ledger, self.finisher, self._placement, self.commits.committed, self.now_ms
        )
        self.deadlines = DeadlineKeeper(self.ledger, self.lookout, self.canceller, self.now_ms)
        self.creator = Creator(
            self.ledger,
            self.outbox.offer,
            self.now_ms,
            created=self.commits.created,
            max_open_tasks=settings.max_open_tasks,
            deadlines=self.deadlines.accepted,
            replaced=self.canceller.follow_up_soon,
            lanes=settings.ledger_writers,
        )
        self.watchers = Watchers(self.ledger, self.bus)
        self.feed = Feed(self.ledger, self.bus, self._heard_ms, self.now_ms)
        self.deleter = Deleter(self.ledger, self.canceller, self.watchers, self.bus, self.now_ms)
        self.bulk = Bulk(self.ledger, self.canceller, self.deleter, self.now_ms)
        self.redriver = Redriver(self.ledger, self.admission, self.creator, redriven_task, self.now_ms)
        self.updater = Updater(
            self.ledger,
            self._placement,
            self.outbox.offer,
            self.commits.committed,
            self.now_ms,
            deadlines=self.deadlines.accepted,
        )

    def _build_streams(self) -> None:
        execution = self._kit.peers("meshq.execution")
        self.dispatch = Fleet("dispatch to", execution, self._dispatch_link)
        self.progress = Fleet("progress of", execution, self._progress_link)
        self.listening = Fleet(
            "commits of", self._kit.peers("meshq.management"), self._commit_link, self._kit.instance_id
        )
        self.configuring = Fleet(
            "settings for", execution, lambda item: ConfigureLink(self._kit.direct(item.address), self.book)
        )
        self.bus.on_watched(self._watched_changed)
        self.bus.on_news_wanted(self._news_wanted_changed)

    def _build_queues(self) -> None:
        self.queue_figures = QueueFigures(self.queue_store, self._placement, self.now_ms)
        self.queue_watches = QueueWatches(self.queue_figures)
        self.configurer = Configurer(self.book, self.configuring)
        self.queue_changes = QueueChanges(
            self.queue_store,
            self.book,
            self.configurer,
            self.commits.queues_changed,
            self.now_ms,
        )
        self.purger = Purger(
            ledger=self.ledger,
            store=self.queue_store,
            recaller=self._placement,
            finisher=self.finisher,
            committed=self.commits.committed,
            now_ms=self.now_ms,
        )
        self.revival = Revival(self.queue_store, self.book, self.ledger.forget_queues, self.now_ms)

    def _build_upkeep(self) -> None:
        settings = self._settings
        self.sweeper = Sweeper(
            ledger=self.ledger,
            lookout=self.lookout,
            comparer=self._placement,
            outbox=self.outbox,
            canceller=self.canceller,
            now_ms=self.now_ms,
            age=settings.sweep_age,
            rate=settings.sweep_rate,
        )
        self.promoter = Promoter(self.ledger, self.lookout, self.outbox, self.now_ms)
        self.forgetter = KeyForgetter(self.kept, self.lookout, self.now_ms)
        self.housekeeping = Housekeeping(
            self.kept,
            self.ledger,
            self.lookout,
            self._attempts,
            self.now_ms,
            retentions=self.book.retentions,
        )
        self._backlog = Repeater("backlog", self.creator.count_backlog, _COUNT_SECONDS)

    def app(self) -> App:
        """What the process serves and runs."""
        return App(services=self.services(), background=self.background(), drain=self.drain)

    def services(self) -> list[ServedService]:
        """What is served."""
        views = Views(self.ledger, self._attempts, self.fresh, self.now_ms)
        parts = TaskParts(
            ledger=self.ledger,
            creator=self.creator,
            admission=self.admission,
            canceller=self.canceller,
            deleter=self.deleter,
            bulk=self.bulk,
            redriver=self.redriver,
            updater=self.updater,
            watchers=self.watchers,
            feed=self.feed,
            views=views,
            waiting=Waiting(self.ledger, self._placement, self.book.settings, self.now_ms),
            attempts=self._attempts,
            stopping=asyncio.Event(),
        )
        self._tasks = tasks = TaskServicer(parts)
        queues = QueueServicer(
            self.queue_figures, self.queue_changes, self.purger, self.queue_watches, self.now_ms
        )
        reports = LedgerServicer(self.finisher, self.ledger, self.commits, self.fresh)
        commits = CommitServicer(self.commits, self.fresh)
        return [
            ServedService(
                "meshq.v1.TaskService",
                lambda server: task_service_pb2_grpc.add_TaskServiceServicer_to_server(tasks, server),
            ),
            ServedService(
                "meshq.v1.QueueService",
                lambda server: queue_service_pb2_grpc.add_QueueServiceServicer_to_server(queues, server),
            ),
            ServedService(
                "meshq.internal.v1.LedgerService",
                lambda server: ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(reports, server),
            ),
            ServedService(
                "meshq.internal.v1.CommitService",
                lambda server: commit_service_pb2_grpc.add_CommitServiceServicer_to_server(commits, server),
            ),
        ]

    def background(self) -> list[Background]:
        """What runs beside the server, in the order of its start."""
        parts = [
            self._database,
            self.clock,
            self.book,
            self.revival,
            self.office,
            self.housekeeping,
            self.chains,
            self.finisher,
            self.canceller,
            self.admission,
            self.creator,
            self._backlog,
            self.watchers,
            self.listening,
            self.progress,
            self.configuring,
            self.dispatch,
            self.sweeper,
            self.promoter,
            self.deadlines,
            self.forgetter,
            self.lookout,
        ]
        return cast("list[Background]", parts)

    async def drain(self) -> None:
        """Have whoever follows a stream here go elsewhere. Unary calls end by themselves."""
        self.bus.drain()
        self.commits.drain()
        self.queue_watches.drain()
        self._tasks.drain()

    def _rules(self, row: TaskRow) -> Rules:
        poison_limit = self.book.settings(row.tenant, row.queue).poison_limit
        return Rules(retry_policy(row.traits), poison_limit, random())  # noqa: S311

    def _dispatch_link(self, instance: Instance) -> DispatchLink:
        return DispatchLink(
            self._kit.direct(instance.address), self.outbox, self.sweeper.compare_all, self.configurer.met
        )

    def _progress_link(self, instance: Instance) -> ProgressLink:
        return ProgressLink(self._kit.direct(instance.address), self._kit.instance_id, self.bus)

    def _commit_link(self, instance: Instance) -> CommitLink:
        return CommitLink(
            self._kit.direct(instance.address),
            self._kit.instance_id,
            self.bus,
            gap=self._missed,
            now_ms=self.now_ms,
            queues_changed=self.book.wake,
            fresh=self.fresh,
        )

    def _missed(self) -> None:
        self.watchers.gap()
        self.bus.publish_gap()

    def _heard_ms(self) -> int:
        return min((link.heard_ms for link in self.listening.links()), default=self.now_ms())

    def _watched_changed(self) -> None:
        for link in self.listening.links():
            link.watched_changed()

    def _news_wanted_changed(self, task_id: bytes) -> None:
        for link in self.progress.links():
            link.news_wanted_changed(task_id)
