"""Executes runs in memory, for tests. It keeps the contract of the real ones (tests/service/backends) and its own history."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lorafleet.errors import Unavailable
from service.backends.base import Alive, Observation, RunRef, RunRequest
from service.control.attempts import Gone
from service.control.capacity import Hardware


@dataclass
class FakeBackend:
    """Runs live until they are stopped or `end`ed. A failpoint raises before or after the effect, as a kill would."""

    launches: list[str] = field(default_factory=list)  # run ids, every one that really started
    stops: list[str] = field(default_factory=list)
    requests: dict[str, RunRequest] = field(default_factory=dict)  # by run id
    tokens: dict[str, str] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)  # by run id
    store_envs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    reachable: bool = True
    stops_obeyed: bool = True
    before_launch: Callable[[], None] | None = None  # failpoints
    after_launch: Callable[[], None] | None = None
    written: dict[str, bytes] = field(default_factory=dict)
    piece_bytes: int = 64 * 1024  # of its logs
    log_reads: list[int] = field(default_factory=list)  # from which byte on
    forgotten: list[str] = field(default_factory=list)
    fixed_hardware: Hardware | None = None
    _runs: dict[str, Observation] = field(default_factory=dict)

    async def launch(self, run: RunRequest) -> str:
        self._check()
        if self.before_launch is not None:
            self.before_launch()
        if run.run_id not in self._runs:
            self._runs[run.run_id] = Alive()
            self.launches.append(run.run_id)
            self.requests[run.run_id] = run
            self.tokens[run.run_id] = run.token
            self.instances[run.run_id] = run.instance
            self.store_envs[run.run_id] = run.store_env
        if self.after_launch is not None:
            self.after_launch()
        return f"fake:{run.run_id}"

    async def observe(self, run: RunRef) -> Observation:
        self._check()
        return self._runs.get(run.run_id, Gone(reason="RUN_LOST", message="the backend does not know the run"))

    async def stop(self, run: RunRef) -> None:
        self._check()
        self.stops.append(run.run_id)
        if self.stops_obeyed:
            self.end(run.run_id, "RUN_STOPPED", "stopped")

    async def runs(self, instance: str) -> Sequence[RunRef]:
        self._check()
        return [RunRef(run_id=run_id, handle=f"fake:{run_id}") for run_id in self.alive if self.instances[run_id] == instance]

    async def logs(self, run: RunRef, start: int = 0) -> AsyncGenerator[bytes, None]:
        self._check()
        self.log_reads.append(start)
        text = self.written.get(run.run_id, b"")[start:]
        for at in range(0, len(text), self.piece_bytes):
            yield text[at : at + self.piece_bytes]

    async def forget(self, run: RunRef) -> None:
        self._check()
        self.forgotten.append(run.run_id)

    def hardware(self) -> Hardware | None:
        return self.fixed_hardware

    async def ping(self) -> None:
        self._check()

    async def close(self) -> None:
        pass

    def end(self, run_id: str, reason: str = "RUN_LOST", message: str = "the driver exited with code 1") -> None:
        """The run ends, if it lives."""
        if isinstance(self._runs.get(run_id), Alive):
            self._runs[run_id] = Gone(reason=reason, message=message)

    def say(self, run_id: str, alive: Alive) -> None:
        """The state of a live run."""
        if isinstance(self._runs.get(run_id), Alive):
            self._runs[run_id] = alive

    @property
    def alive(self) -> list[str]:
        return [run_id for run_id, state in self._runs.items() if isinstance(state, Alive)]

    def _check(self) -> None:
        if not self.reachable:
            raise Unavailable("the fake backend is away", reason="BACKEND_UNREACHABLE")
