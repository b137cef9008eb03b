"""What goes wrong, and when: a seeded sequence of faults, each done to whatever it names and undone after a while."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from bench.chaos.database import FleetDatabase
from bench.chaos.failpoints import POINTS
from bench.chaos.fleet import Fleet, Replica
from bench.chaos.poison import Poisoner
from bench.chaos.proxies import Proxies
from bench.chaos.replica import CREDENTIALS_EXPIRED, DISK_FULL, LEASE_S, STORE_AWAY
from bench.chaos.starving import Watch

AHEAD_S = (-3600.0, -600.0, -60.0, 0.0, 60.0, 600.0, 3600.0)  # what the clock is set to
RECOVERY_S = 3.0  # after the last fault: replicas have connected again, and their loops' delays are over

# How many of each, for every hundred.
WEIGHTS = {
    "kill": 20, "pause": 12, "database_restart": 3, "cut_database": 6, "slow_database": 6, "cut_backend": 5, "slow_backend": 4,
    "cut_api": 6, "store_outage": 4, "credentials_expired": 3, "disk_full": 2, "database_read_only": 2, "clock_step": 4, "poison": 2,
    **dict.fromkeys((f"at_{point}" for point in POINTS), 5),
}  # fmt: skip


def sequence(number: int, seed: int) -> Iterator[str]:
    """So many kinds in a shuffled order: every kind comes up, whatever the seed."""
    kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(max(1, round(number * weight / sum(WEIGHTS.values()))))]
    random.Random(f"{seed}/faults").shuffle(kinds)
    return iter(kinds)


class Faults:
    """Does them. `done` counts those that took place: a failpoint that was never reached is none."""

    def __init__(self, fleet: Fleet, database: FleetDatabase, proxies: Proxies, poisoner: Poisoner, watch: Watch, seed: int) -> None:
        self._fleet = fleet
        self._database = database
        self._proxies = proxies
        self._poisoner = poisoner
        self._watch = watch
        self._draw = random.Random(f"{seed}/where")
        self.done: Counter[str] = Counter()
        self._undoing: list[threading.Thread] = []
        self.errors: list[str] = []
        self.calm_s = 0.0  # spent in watching what poison alone does
        self._ahead_s = 0.0

    def do(self, kind: str) -> None:
        """One fault; those that last are undone by a thread."""
        if kind.startswith("at_"):
            self._arm(kind.removeprefix("at_"))
        elif kind.startswith(("cut_", "slow_")):
            self._link(kind)
        else:
            getattr(self, f"_{kind}")()

    def settle(self) -> None:
        """Waits until everything is undone."""
        for thread in self._undoing:
            thread.join(60)

    def _kill(self) -> None:
        replica = self._replica()
        if replica is not None and replica.kill():
            self.done["kill"] += 1

    def _pause(self) -> None:
        replica = self._replica()
        if replica is not None and replica.pause():
            self.done["pause"] += 1
            self._later(LEASE_S * self._draw.uniform(1.1, 1.8), replica.resume)

    def _arm(self, point: str) -> None:
        replica = self._replica()
        if replica is not None:
            replica.arm(point, self._draw.randint(1, 3))

    def _database_restart(self) -> None:
        self.done["database_restart"] += 1
        self._database.restart()

    def _store_outage(self) -> None:
        self._store_fails("store_outage", STORE_AWAY)

    def _credentials_expired(self) -> None:
        self._store_fails("credentials_expired", CREDENTIALS_EXPIRED)

    def _disk_full(self) -> None:
        self._store_fails("disk_full", DISK_FULL)

    def _store_fails(self, kind: str, flag: str) -> None:
        self.done[kind] += 1
        path = self._fleet.folder / flag
        path.touch()
        self._later(self._draw.uniform(1, 4), lambda: path.unlink(missing_ok=True))

    def _database_read_only(self) -> None:
        self.done["database_read_only"] += 1
        self._database.set_read_only(True)
        self._later(self._draw.uniform(1, 4), lambda: self._database.set_read_only(False))

    def _clock_step(self) -> None:
        """Forward or back, for all replicas at once: they follow the database's clock."""
        self.done["clock_step"] += 1
        self._ahead_s = self._draw.choice([ahead_s for ahead_s in AHEAD_S if ahead_s != self._ahead_s])
        self._database.set_clock(self._ahead_s)

    def _poison(self) -> None:
        """Counts poisoned jobs. What they do to others' is watched while nothing else goes wrong; they stay in the queue long after."""
        began = time.monotonic()
        self.settle()
        self._fleet.until_listening()
        time.sleep(RECOVERY_S)
        self.done["poison"] += self._poisoner.poison()
        self._watch.look_for()
        self.calm_s += time.monotonic() - began

    def _link(self, kind: str) -> None:
        verb, _, name = kind.partition("_")
        if name == "api":
            name = f"api-{self._draw.randrange(len(self._fleet.replicas))}"
        self.done[kind] += 1
        if verb == "cut":
            self._proxies.cut(name)
        else:
            self._proxies.slow(name, self._draw.choice([50, 200, 800]))
        self._later(self._draw.uniform(0.5, 4), lambda: self._proxies.mend(name))

    def _replica(self) -> Replica | None:
        live = [replica for replica in self._fleet.replicas if replica.works]
        return self._draw.choice(live) if live else None

    def _later(self, after_s: float, undo: Callable[[], None]) -> None:
        def run() -> None:
            time.sleep(after_s)
            try:
                undo()
            except Exception as error:
                self.errors.append(f"undoing failed: {error!r}")

        thread = threading.Thread(target=run, daemon=True)
        self._undoing.append(thread)
        thread.start()
