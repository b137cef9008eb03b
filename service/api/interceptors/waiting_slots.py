"""Gives slots to calls that wait for their callers, counted by whose they are. Knows nothing of gRPC."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class WaitingSlot:
    """One that is taken. `lost` is called when it is needed for another call."""

    pool: "WaitingSlots"
    who: str
    lost: Callable[[], None]

    def leave(self) -> None:
        """Nothing, when it is left already or lost."""
        self.pool.forget(self)


class WaitingSlots:
    """When there are none left, the call that has waited longest loses its slot: of its own who asks for more than `most_each`, else
    of those who have most. Waiting costs a caller nothing, so whoever waits longest is no loss, and a call that comes and goes at
    once finds a slot however many others stand about."""

    def __init__(self, most: int, most_each: int) -> None:
        self.most = most
        self.most_each = most_each
        self.num_taken = 0
        self._of: dict[str, dict[WaitingSlot, None]] = {}  # in the order in which they came

    def is_full_of(self, who: str) -> bool:
        """Whether these have as many slots as one may."""
        return len(self._of.get(who, ())) >= self.most_each

    def take(self, who: str, lost: Callable[[], None]) -> WaitingSlot:
        """A slot, which the call leaves when it goes on."""
        if self.is_full_of(who):
            self._free(who)
        elif self.num_taken >= self.most:
            self._free(max(self._of, key=lambda one: len(self._of[one])))
        slot = WaitingSlot(self, who, lost)
        self._of.setdefault(who, {})[slot] = None
        self.num_taken += 1
        return slot

    def forget(self, slot: WaitingSlot) -> None:
        """The slot is free again."""
        own = self._of.get(slot.who, {})
        if slot not in own:
            return
        del own[slot]
        self.num_taken -= 1
        if not own:
            del self._of[slot.who]

    def _free(self, who: str) -> None:
        slot = next(iter(self._of[who]))
        self.forget(slot)
        slot.lost()
