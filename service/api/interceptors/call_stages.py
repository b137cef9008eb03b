"""Tracks where each call stands: waiting for its caller, at work, or being answered. What a caller can draw out takes a slot."""

import asyncio
import ipaddress
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from lorafleet.transport.addresses import host_of
from service.api.interceptors.rpc_tasks import cut_off
from service.api.interceptors.waiting_slots import WaitingSlot, WaitingSlots
from service.settings.serve_settings import CallLimits

MOST_WAITING = 1_000  # calls of known callers whose messages have not come
MOST_WAITING_EACH = 500
MOST_REPORTS = 1_000  # that have not come whole
MOST_REPORTS_EACH = 500  # of one address: runs behind one may be many
MOST_ANSWERS = 1_000  # that are on their way
MOST_ANSWERS_EACH = 500

current: ContextVar["CallStage"] = ContextVar("call_stage")


class SlotPools:
    """One server's slots. Each kind has its own: whoever fills one stands in nobody else's way."""

    def __init__(self, limits: CallLimits) -> None:
        unknown = (limits.max_unknown_calls, min(limits.max_unknown_calls, limits.max_unknown_calls_per_address))
        self.strangers = WaitingSlots(*unknown)  # by address: whose caller is not known yet, and checks of health
        self.watches = WaitingSlots(*unknown)  # by address: of health
        self.reports = WaitingSlots(MOST_REPORTS, MOST_REPORTS_EACH)  # by address
        self.known = WaitingSlots(MOST_WAITING, MOST_WAITING_EACH)  # by principal
        self.answers = WaitingSlots(MOST_ANSWERS, MOST_ANSWERS_EACH)  # by address

    @staticmethod
    def num_slots(limits: CallLimits) -> int:
        """All slots of a server."""
        return 2 * limits.max_unknown_calls + MOST_REPORTS + MOST_WAITING + MOST_ANSWERS


@dataclass(eq=False, slots=True)
class CallStage:
    """One call's. `task` is gRPC's own for its handler: it ends when the answer is with the caller."""

    pools: SlotPools
    slots: WaitingSlots
    address: str
    task: "asyncio.Task[object]"
    slow_reader_s: float
    who: str = ""
    is_lost: bool = False  # its slot went to another call
    _slot: WaitingSlot | None = None
    _timer: asyncio.TimerHandle | None = None

    def wait(self) -> None:
        """The caller's turn: until the call works its slot may go to another."""
        self._take(self.slots, self.who or self.address, self.lose)

    def become_known(self, principal: str) -> None:
        """From now on it is counted by whom it is of."""
        self.slots, self.who = self.pools.known, principal
        self.wait()

    def work(self) -> None:
        """The message is there: from now on it costs us, for which there are other limits."""
        self._leave()

    def lose(self) -> None:
        """Its slot went to another call: it ends, and is told so."""
        self.is_lost = True
        self.task.cancel()

    def answer(self) -> None:
        """All is said, and gRPC sends it. A caller that does not read is cut off: it takes no status either."""
        self._take(self.pools.answers, self.address, self._cut_off)
        self._timer = asyncio.get_running_loop().call_later(self.slow_reader_s, self._cut_off)

    def end(self, _task: object = None) -> None:
        """The call is over, however it ended."""
        self._leave()
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, slots: WaitingSlots, who: str, lost: Callable[[], None]) -> None:
        self._leave()
        self._slot = slots.take(who, lost)

    def _leave(self) -> None:
        if self._slot is not None:
            self._slot.leave()

    def _cut_off(self) -> None:
        cut_off(self.task)


@lru_cache(maxsize=10_000)
def address_of(peer: str) -> str:
    """Who stands behind a gRPC peer: an address of IPv4; of IPv6 the network of 64 bits, all of which one machine may have."""
    host = host_of(unquote(peer).partition(":")[2]).partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return peer  # a socket of this machine
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
