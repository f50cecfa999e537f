"""What goes to the server: results, credit, progress and output, many to a frame.

Threads put things here and a thread of its own sends them. It sends at once after a quiet moment; while
it works, or rests for a few milliseconds, more comes together. A frame for each task would cost more than
most tasks.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from typing import Final

from meshq.contract.limits import MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker.credit import Credit
from meshq.worker.jobs import Job
from meshq.worker.news import PROGRESS_SECONDS, Words, frames
from meshq.worker.pipe import Pipe, PipeClosed
from meshq.worker.pulse import Pulse

MAX_WAITING_OUTPUT: Final = 4 << 20
"""Bytes of output that may wait; more is dropped. Its offsets show the gap."""


class Outbox:
    """Collects and sends; `progress` and `output` are the handlers' `News`."""

    def __init__(self, credit: Credit) -> None:
        self.pipe: Pipe | None = None
        self._credit = credit
        self._ended: deque[pb.TaskResult | None] = deque()
        self._outputs: deque[pb.LeaseOutput] = deque()
        self._output_size = 0
        self._words = Words(time.monotonic)
        self._pulse = Pulse(self.progress)
        self._signalled = False
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="meshq-outbox", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is there, and end."""
        self._closed = True
        self._signals.put(None)
        self._thread.join()
        self.flush()

    def end(self, result: pb.TaskResult | None) -> None:
        """A task ended; None when nobody waits for its result."""
        if result is not None:
            self._words.end(result.lease_token)
        self._ended.append(result)
        self.signal()

    def progress(self, progress: pb.LeaseProgress) -> None:
        """Take progress, a checkpoint, or a mere sign of life of a lease."""
        self._words.add(progress)
        self.signal()

    def output(self, output: pb.LeaseOutput) -> None:
        """Take a piece of output, or drop it when too much waits."""
        if self._output_size < MAX_WAITING_OUTPUT:
            self._output_size += len(output.chunk)
            self._outputs.append(output)
            self.signal()

    def keep_alive(self, job: Job) -> None:
        """Give signs of life for a job with a heartbeat_timeout as long as its handler does not."""
        self._pulse.add(job)

    def signal(self) -> None:
        """There is something to do, or credit may have changed."""
        if not self._signalled:
            self._signalled = True
            self._signals.put(None)

    def flush(self) -> None:
        """Send everything now."""
        with self._sending:
            # What a handler said before it ended has to go before its result.
            ended = len(self._ended)
            try:
                self._send_outputs()
                self._send_progress()
                self._send_results(ended)
                self._send_credit()
            except PipeClosed:
                pass  # The worker starts another session process; results that got lost are run again.

    def _run(self) -> None:
        wait: float | None = None
        while not self._closed:
            with contextlib.suppress(queue.Empty):
                self._signals.get(timeout=wait)
            self._signalled = False
            self.flush()
            wait = PROGRESS_SECONDS if self._words else None
            time.sleep(self._credit.rest())

    def _send(self, frame: pb.ConnectRequest) -> None:
        if self.pipe is not None:
            self.pipe.send_frame(frame.SerializeToString())

    def _send_results(self, count: int) -> None:
        frame = pb.ConnectRequest()
        size = 0
        for _ in range(count):
            result = self._ended.popleft()
            if result is None:
                continue
            frame.results.results.append(result)
            size += result.ByteSize()
            if size >= SOFT_FRAME_BYTES or len(frame.results.results) == MAX_FRAME_ITEMS:
                self._send(frame)
                frame, size = pb.ConnectRequest(), 0
        if size:
            self._send(frame)
        self._credit.finish(count)

    def _send_credit(self) -> None:
        total = self._credit.top_up()
        if total is not None:
            self._send(pb.ConnectRequest(credits=pb.Credits(total=total)))

    def _send_outputs(self) -> None:
        frame = pb.ConnectRequest()
        size = 0
        while self._outputs:
            output = self._outputs.popleft()
            size += len(output.chunk)
            frame.output.outputs.append(output)
            if size >= SOFT_FRAME_BYTES or len(frame.output.outputs) == MAX_FRAME_ITEMS:
                self._send(frame)
                frame, size = pb.ConnectRequest(), 0
        if frame.output.outputs:
            self._send(frame)
        self._output_size = 0

    def _send_progress(self) -> None:
        for heartbeat in frames(self._words.take(all_of_them=self._closed)):
            self._send(pb.ConnectRequest(heartbeat=heartbeat))
