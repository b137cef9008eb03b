"""Places for calls that wait: who has most loses one, and never who has few."""

from functools import partial

from service.api.interceptors.waiting_slots import WaitingSlot, WaitingSlots


class Waiting:
    """Takes places, and notes who lost one."""

    def __init__(self, most: int, most_each: int) -> None:
        self.places = WaitingSlots(most, most_each)
        self.lost: list[str] = []

    def come(self, who: str, call: str = "") -> WaitingSlot:
        return self.places.take(who, partial(self.lost.append, call or who))


def test_of_one_too_many_of_its_own_the_one_that_waited_longest_goes():
    waiting = Waiting(most=10, most_each=2)
    for call in ("first", "second", "third"):
        waiting.come("eve", call)
    assert waiting.lost == ["first"]
    assert waiting.places.num_taken == 2


def test_when_all_are_taken_those_who_have_most_lose_one():
    waiting = Waiting(most=3, most_each=3)
    for who in ("ada", "eve", "eve", "bob"):
        waiting.come(who)
    assert waiting.lost == ["eve"]


def test_a_place_that_is_left_is_free_and_left_once():
    waiting = Waiting(most=1, most_each=1)
    place = waiting.come("ada")
    place.leave()
    place.leave()
    waiting.come("bob")
    assert waiting.lost == []
    assert waiting.places.num_taken == 1


def test_a_lost_place_is_not_given_back_twice():
    waiting = Waiting(most=5, most_each=1)
    lost = waiting.come("eve")
    waiting.come("eve")
    lost.leave()
    assert waiting.places.num_taken == 1
