"""What running handlers say: progress, checkpoints, signs of life and output."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from meshq.execution.attempts.checkpoints import Checkpoints
from meshq.execution.conversion.news import checkpoint_of, is_news, output_news, progress_news
from meshq.execution.conversion.requests import check_count, check_output, check_progress
from meshq.execution.conversion.tokens import decode_token
from meshq.execution.model import Lease
from meshq.execution.news import NewsRoom, ProgressBoard
from meshq.execution.sessions.beats import Beats
from meshq.execution.sessions.session import Session
from meshq.v1 import worker_service_pb2 as pb


class Handlers:
    """See the module.

    Args:
        news: Tells those who watch.
        board: Keeps the latest progress.
        checkpoints: Keeps checkpoints.
        beats: Tells shards that handlers live.
    """

    def __init__(self, news: NewsRoom, board: ProgressBoard, checkpoints: Checkpoints, beats: Beats) -> None:
        self.board = board
        self._news = news
        self._checkpoints = checkpoints
        self._beats = beats

    def progress_of(self, session: Session, progress: Sequence[pb.LeaseProgress], field: str) -> None:
        """Take the progress of a session's handlers; each word is a sign of life."""
        living = []
        for lease, item in self._named(progress, field):
            held = session.leases.get(item.lease_token)
            if held is not None:
                self._take(lease, item)
                if held.beats:
                    living.append(lease)
        if living:
            self._beats.add(living)

    def progress(
        self, progress: Sequence[pb.LeaseProgress], field: str, lost: Collection[bytes]
    ) -> list[bytes]:
        """Take the progress of handlers whose leases are renewed one by one.

        Args:
            progress: What they say.
            field: Where that stands in the request.
            lost: The tokens of leases that are lost: another worker may run the same attempt by now.

        Returns:
            The tasks with checkpoints, which are to be kept before the answer.
        """
        named = [
            (lease, item) for lease, item in self._named(progress, field) if item.lease_token not in lost
        ]
        for lease, item in named:
            self._take(lease, item)
        return [lease.task_id for lease, item in named if item.HasField("checkpoint")]

    async def keep(self, task_ids: Sequence[bytes]) -> None:
        """Write the checkpoints of tasks."""
        await self._checkpoints.keep(task_ids)

    def output(self, outputs: Sequence[pb.LeaseOutput], field: str) -> None:
        """Pass on what handlers wrote."""
        check_count(len(outputs), field)
        for index, item in enumerate(outputs):
            lease = decode_token(item.lease_token, f"{field}[{index}].lease_token")
            check_output(item, f"{field}[{index}]")
            if self._news.watched(lease.task_id):
                self._news.tell(lease.task_id, output_news(lease, item))

    def _named(
        self, progress: Sequence[pb.LeaseProgress], field: str
    ) -> list[tuple[Lease, pb.LeaseProgress]]:
        check_count(len(progress), field)
        found = []
        for index, item in enumerate(progress):
            lease = decode_token(item.lease_token, f"{field}[{index}].lease_token")
            check_progress(item, f"{field}[{index}]")
            found.append((lease, item))
        return found

    def _take(self, lease: Lease, item: pb.LeaseProgress) -> None:
        if item.HasField("checkpoint"):
            self._checkpoints.take(checkpoint_of(lease, item))
        if is_news(item):
            news = progress_news(lease, item, self.board.of(lease.task_id))
            self.board.note(lease.task_id, news.progress)
            if self._news.watched(lease.task_id):
                self._news.tell(lease.task_id, news)
