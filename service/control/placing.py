"""Decides where a pack goes that may start: to warm workers, to a free place, or to the place of workers that must leave first."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.control.capacity import NOTHING, Resources
from service.control.compatibility import StandbyKey, WarmKey
from service.control.packing import Pack, Sharing, may_share

Tenancy = tuple[str, Sharing]  # a tenant, and whose company its job may keep


@dataclass(frozen=True, kw_only=True)
class IdleHost:
    """Warm workers that wait for a run, or such as stand by for their first, be it that they still come up."""

    run_id: str  # the run that they have ended, or stand by in
    host_id: str
    key: WarmKey | StandbyKey
    tenancy: frozenset[Tenancy]  # of every job that was ever in their process

    @property
    def resources(self) -> Resources:
        return self.key.cluster.resources


@dataclass(frozen=True, kw_only=True)
class AvailableCapacity:
    """Where packs can go."""

    free: Resources
    leaving: Resources = NOTHING  # of hosts that were released and hold their place until they are gone
    idle: Sequence[IdleHost] = ()  # the one that waits longest first

    @property
    def in_reach(self) -> Resources:
        total = self.free.plus(self.leaving)
        for host in self.idle:
            total = total.plus(host.resources)
        return total


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start it: on warm workers, or (None) on new ones."""

    pack: Pack
    host: IdleHost | None


@dataclass(frozen=True, kw_only=True)
class Release:
    """Nothing that comes first can use these warm workers: their place is needed."""

    host: IdleHost


Decision = Start | Release


class Placement:
    """Gives places away, one pack after the other."""

    def __init__(self, available: AvailableCapacity) -> None:
        self._free, self._leaving = available.free, available.leaving
        self._idle = list(available.idle)

    def place(self, pack: Pack) -> list[Decision]:
        """What to do so that the pack starts, now or once places are free. A pack that fits nowhere changes nothing.

        It takes warm workers where it may, else a free place; where there is none, it takes the place of warm workers that
        it cannot use, and waits until they are gone.
        """
        if (host := _warm(pack, self._idle)) is not None:
            self._idle.remove(host)
            return [Start(pack=pack, host=host)]
        if pack.demand.fits(self._free):
            self._free = self._free.minus(pack.demand)
            return [Start(pack=pack, host=None)]
        return self._wait_for(pack.demand)

    def _wait_for(self, demand: Resources) -> list[Decision]:
        released: list[IdleHost] = []
        reach = self._free.plus(self._leaving)
        for host in self._idle:
            missing = demand.minus(reach)
            if demand.fits(reach):
                break
            if host.resources.helps(missing):
                released.append(host)
                reach = reach.plus(host.resources)
        if not demand.fits(reach):
            return []
        for host in released:
            self._idle.remove(host)
        left = reach.minus(demand)
        self._free = self._free.least(left)
        self._leaving = left.minus(self._free)
        return [Release(host=host) for host in released]


def tenancy(tenant: str, sharing: Sharing) -> Tenancy:
    """What a job brings into a process: one that wants no company in its run may still follow its own tenant's others."""
    return (tenant, Sharing.TENANT if sharing is Sharing.NOBODY else sharing)


def _warm(pack: Pack, idle: Sequence[IdleHost]) -> IdleHost | None:
    """The base in memory comes first, then those that stand by."""
    brought = {tenancy(member.tenant, member.sharing) for member in pack.members}
    fitting = (host for host in idle if host.key.serves(pack.key.warm) and may_share([*host.tenancy, *brought]))
    return min(fitting, key=lambda host: isinstance(host.key, StandbyKey), default=None)
