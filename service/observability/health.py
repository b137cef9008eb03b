"""Tells whether this process lives, and whether it should get calls. Asks each part by a function it is given; serves nothing.

Live: the event loop answers and no loop is stuck; a process that is not should be restarted. Ready: every part that a call
needs is there and the process does not drain; one that is not should get no new calls, and be left alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import text

from lorafleet.errors import LorafleetError, Unavailable
from service.backends.base import Backend
from service.db import migrate
from service.db.database import Database

ANSWER_WITHIN_S = 5.0  # a part that takes longer is away
FRESH_S = 1.0  # how long a result is reused: more frequent requests cost nothing
STUCK_S = 180.0  # three times a lock's life: by then other replicas have long taken over what the loop held

Check = Callable[[], Awaitable[None]]  # raises what is wrong


class NotReady(LorafleetError):
    """A part is not ready for calls. The message says what to do."""

    reason = "NOT_READY"


@dataclass(frozen=True)
class Health:
    """An answer: for each part "ok" or what is wrong with it. `notes` are troubles that do not count."""

    parts: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def good(self) -> bool:
        return all(state == OK for state in self.parts.values())

    def __str__(self) -> str:
        return "; ".join(f"{part}: {state}" for part, state in self.parts.items() if state != OK) or OK


OK = "ok"


class Pulse:
    """When each loop should have begun its next step. Loops beat it; a step that hangs or a loop that died shows as late."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._due: dict[str, float] = {}

    def begin(self, loop: str) -> None:
        """A step begins; until the next `wait` it is late by as long as it takes."""
        self._due[loop] = self._now()

    def wait(self, loop: str, wait_s: float) -> None:
        """The step is over, and the next begins within that time."""
        self._due[loop] = self._now() + wait_s

    def late_s(self) -> dict[str, float]:
        """Seconds that each loop is behind: how long its step takes by now, or its next one is overdue."""
        return {loop: max(0.0, self._now() - due) for loop, due in self._due.items()}

    def health(self) -> Health:
        """Live or not, loop by loop."""
        message = "has not come round for {:.0f} s; restart this process, other replicas and the next start go on with its work"
        late = self.late_s()
        return Health({f"loop.{loop}": OK if s < STUCK_S else message.format(s) for loop, s in late.items()} or {"event_loop": OK})


class Readiness:
    """Whether this process should get new calls. Shared by the health service, /healthz/ready and the drain."""

    def __init__(self, checks: Mapping[str, Check], now: Callable[[], float] = time.monotonic) -> None:
        self._checks = dict(checks)
        self._now = now
        self._asked: tuple[float, Health] | None = None
        self._asking = asyncio.Lock()
        self.draining = asyncio.Event()

    def drain(self) -> None:
        """No new calls from now on, for good. Load balancers see it at once."""
        self.draining.set()

    async def health(self) -> Health:
        """Ready or not, part by part."""
        async with self._asking:  # concurrent requests share one check
            if self._asked is None or self._now() - self._asked[0] >= FRESH_S:
                self._asked = (self._now(), await self._ask())
            known = self._asked[1]
        drain = "draining; other replicas take the calls" if self.draining.is_set() else OK
        return Health({**known.parts, "drain": drain}, known.notes)

    async def _ask(self) -> Health:
        answers = await asyncio.gather(*(_answer(check) for check in self._checks.values()))
        states = dict(zip(self._checks, answers, strict=True))
        return Health(
            {part: OK if isinstance(state, Note) else state for part, state in states.items()},
            {part: str(state) for part, state in states.items() if isinstance(state, Note)},
        )


class Note(str):
    """Trouble with a part that is no reason to keep calls away."""


class Tolerated(Exception):
    """A check raises it for a trouble that does not count."""


async def _answer(check: Check) -> str:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await check()
    except Tolerated as remark:
        return Note(remark)
    except LorafleetError as error:
        return error.message
    except TimeoutError:
        return f"does not answer within {ANSWER_WITHIN_S:.0f} s"
    except Exception as error:  # whatever a driver raises: the part is away
        return f"does not answer ({type(error).__name__})"
    return OK


def database_check(db: Database) -> Check:
    """The database answers, and its schema is one that this code can work with."""

    async def check() -> None:
        async with db.snapshot() as tx:
            revision = (await tx.session.execute(text("SELECT version_num FROM alembic_version"))).scalar_one_or_none() or "none"
        # A newer one is another replica's, in the middle of an upgrade: migrations keep what the release before them uses.
        if revision < migrate.HEAD or revision == "none":
            raise NotReady(f"its schema is at {revision} and this server needs {migrate.HEAD}; run `lorafleet db upgrade`")
        await db.check_writable()

    return check


def backend_check(backend: Backend) -> Check:
    """The backend has answered once, or is known to be starting.

    One that goes away later is remarked on and does not count: submissions, reads and the reports of runs need none, and
    to refuse them would turn the outage of one part into an outage of all.
    """
    has_answered = False

    async def check() -> None:
        nonlocal has_answered
        try:
            await backend.ping()
            has_answered = True
        except Unavailable as error:
            if has_answered or error.reason == "RAY_STARTING":
                raise Tolerated(error.message) from None
            raise

    return check
