"""Room is divided between queues by weight, and nobody makes up for having been away."""

from meshq.execution.sessions.turns import Turns


def test_shares_follow_the_weights() -> None:
    turns = Turns([3, 1])
    assert turns.divide(8, [0, 1]) == {0: 6, 1: 2}
    assert turns.divide(0, [0, 1]) == {}
    assert turns.divide(5, []) == {}


def test_places_one_by_one_come_to_the_same() -> None:
    turns = Turns([5, 3, 2])
    places = [0, 0, 0]
    for _ in range(100):
        ((index, count),) = turns.divide(1, [0, 1, 2]).items()
        places[index] += count
    assert [abs(place - share) <= 1 for place, share in zip(places, (50, 30, 20), strict=True)] == [True] * 3


def test_who_was_away_does_not_make_up_for_it() -> None:
    turns = Turns([1, 1])
    turns.divide(100, [0])
    shares = turns.divide(10, [0, 1])
    assert abs(shares[0] - shares[1]) <= 1


def test_places_without_tasks_are_given_back() -> None:
    turns = Turns([1, 1])
    assert turns.divide(4, [0, 1]) == {0: 2, 1: 2}
    turns.give_back(1, 2)
    shares = turns.divide(4, [0, 1])
    assert shares[1] >= shares[0]
