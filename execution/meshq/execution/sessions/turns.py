"""Divides room between queues by weight."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence


class Turns:
    """Who is next, by virtual time: each place that a queue gets moves it on by one over its weight.

    Args:
        weights: One for each queue.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = weights
        self._times = [0.0] * len(weights)
        self._now = 0.0

    def divide(self, count: int, among: Iterable[int]) -> dict[int, int]:
        """The places of those queues that get some. A queue that was away does not make up for it."""
        order = [(max(self._times[index], self._now), index) for index in among]
        heapq.heapify(order)
        shares: dict[int, int] = {}
        for _ in range(count if order else 0):
            self._now, index = order[0]
            shares[index] = shares.get(index, 0) + 1
            heapq.heapreplace(order, (self._now + 1 / self._weights[index], index))
        for time, index in order:
            self._times[index] = time
        return shares

    def give_back(self, index: int, count: int) -> None:
        """A queue had no tasks for so many of its places."""
        self._times[index] -= count / self._weights[index]
