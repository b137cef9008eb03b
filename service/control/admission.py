"""Which packs of queued jobs start now, and where. Knows nothing of databases, clocks or Ray."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.control.packing import Pack, Sharing, WarmKey, may_share


class WaitReason(StrEnum):
    """Shown to the user as it stands."""

    NO_FREE_RUN = "NO_FREE_RUN"


PACK_TOO_LARGE = "PACK_TOO_LARGE"  # why a job that fits no worker has failed


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may run at once."""

    max_running_runs: int


Tenancy = tuple[str, Sharing]  # a tenant, and whose company its job may keep


@dataclass(frozen=True, kw_only=True)
class IdleHost:
    """Warm workers that wait for a run."""

    run_id: str  # the run that they have ended
    host_id: str
    key: WarmKey
    tenancy: frozenset[Tenancy]  # of every job that was ever in their process


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where packs can go."""

    num_free: int  # runs that may be launched
    num_leaving: int = 0  # hosts that were released and hold their place until they are gone
    idle: Sequence[IdleHost] = ()  # the one that waits longest first

    @property
    def num_in_reach(self) -> int:
        return self.num_free + self.num_leaving + len(self.idle)


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


def admit(packs: Iterable[Pack], places: Places) -> list[Decision]:
    """First come, first served; asks for no more of `packs` than there are places for.

    A pack takes warm workers where it may, else a free place; where there is none, it takes the place of warm workers
    that it cannot use, and waits until they are gone.
    """
    decisions: list[Decision] = []
    idle, num_free, num_leaving = list(places.idle), places.num_free, places.num_leaving
    taken = iter(packs)
    while (num_free > 0 or num_leaving or idle) and (pack := next(taken, None)) is not None:
        if (host := _warm(pack, idle)) is not None:
            idle.remove(host)
            decisions.append(Start(pack=pack, host=host))
        elif num_free > 0:
            num_free -= 1
            decisions.append(Start(pack=pack, host=None))
        elif num_leaving:
            num_leaving -= 1
        else:
            decisions.append(Release(host=idle.pop(0)))
    return decisions


def told(limits: Limits) -> str:
    """What a job that waits for a free run is told."""
    return f"waits for a free run: {limits.max_running_runs} of {limits.max_running_runs} at work (limit max_running_runs)"


def tenancy(tenant: str, sharing: Sharing) -> Tenancy:
    """What a job brings into a process: one that wants no company in its run may still follow its own tenant's others."""
    return (tenant, Sharing.TENANT if sharing is Sharing.NOBODY else sharing)


def _warm(pack: Pack, idle: Sequence[IdleHost]) -> IdleHost | None:
    brought = {tenancy(member.tenant, member.sharing) for member in pack.members}
    return next((host for host in idle if host.key == pack.key.warm and may_share([*host.tenancy, *brought])), None)
