"""The leases of a worker, and the results that the server has not recorded yet. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.struct_pb2 import Value

from meshq.contract.limits import MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.v1 import worker_service_pb2 as pb


class Leases:
    """What the worker holds.

    A lease is held from its assignment until its result is recorded, or it is lost. The value is None
    while the task runs, and its result afterwards. Checkpoints are kept as long, because nobody
    acknowledges them: each new session is told the latest ones again.
    """

    def __init__(self, held: Iterable[bytes] = ()) -> None:
        self._held: dict[bytes, pb.TaskResult | None] = dict.fromkeys(held)
        self._checkpoints: dict[bytes, Value] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def tokens(self) -> list[bytes]:
        """The tokens, in the order of assignment."""
        return list(self._held)

    @property
    def unrecorded(self) -> int:
        """How many results are not recorded yet."""
        return sum(result is not None for result in self._held.values())

    def assign(self, tokens: Iterable[bytes]) -> None:
        """The server assigned tasks; one that is held already stays as it is."""
        for token in tokens:
            self._held.setdefault(token, None)

    def note(self, words: Iterable[pb.LeaseProgress]) -> None:
        """Handlers said something; keeps the latest checkpoint of each."""
        for word in words:
            if word.HasField("checkpoint") and word.lease_token in self._held:
                self._checkpoints[word.lease_token] = word.checkpoint

    def report(self, results: Iterable[pb.TaskResult]) -> None:
        """Handlers ended; results of leases that were lost meanwhile count for nothing."""
        for result in results:
            if result.lease_token in self._held:
                self._held[result.lease_token] = result

    def acknowledge(self, acks: Iterable[pb.ResultAck]) -> list[bytes]:
        """The server answered results; returns the tokens whose results are to be reported again."""
        again = []
        for ack in acks:
            if ack.status == pb.RESULT_STATUS_TRY_LATER:
                again.append(ack.lease_token)
            else:
                self._drop(ack.lease_token)
        return again

    def lose(self, tokens: Iterable[bytes]) -> None:
        """The server took leases away."""
        for token in tokens:
            self._drop(token)

    def welcome(self, answers: Iterable[pb.HeldLease]) -> list[bytes]:
        """A new session began; drops what was not kept.

        Returns:
            The leases that were lost while their handlers run.
        """
        kept = {answer.lease_token for answer in answers if answer.kept}
        lost = [token for token in self._held if token not in kept]
        return [token for token in lost if self._drop(token) is None]

    def checkpoints(self) -> list[pb.LeaseProgress]:
        """The latest checkpoints of the leases that are held."""
        return [
            pb.LeaseProgress(lease_token=token, checkpoint=value)
            for token, value in self._checkpoints.items()
        ]

    def results(self, tokens: Iterable[bytes] | None = None) -> Iterator[pb.Results]:
        """Frames of the results that wait to be recorded, all of them or those of some tokens."""
        frame = pb.Results()
        size = 0
        for token in self.tokens if tokens is None else tokens:
            result = self._held.get(token)
            if result is None:
                continue
            length = result.ByteSize()
            count = len(frame.results)
            if count and (count == MAX_FRAME_ITEMS or size + length > SOFT_FRAME_BYTES):
                yield frame
                frame, size = pb.Results(), 0
            frame.results.append(result)
            size += length
        if frame.results:
            yield frame

    def _drop(self, token: bytes) -> pb.TaskResult | None:
        self._checkpoints.pop(token, None)
        return self._held.pop(token, None)
