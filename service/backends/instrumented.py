"""Counts, times and traces each call of a backend. Changes nothing of what it does."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from service.backends.base import Backend, Observation, RunRef, RunRequest
from service.control.capacity import Hardware
from service.core.telemetry import outside_call


class ObservedBackend:
    """The backend, observed."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def launch(self, run: RunRequest) -> str:
        with outside_call("backend", "launch", run=run.run_id):
            return await self._backend.launch(run)

    async def observe(self, run: RunRef) -> Observation:
        with outside_call("backend", "observe", run=run.run_id):
            return await self._backend.observe(run)

    async def stop(self, run: RunRef) -> None:
        with outside_call("backend", "stop", run=run.run_id):
            await self._backend.stop(run)

    async def logs(self, run: RunRef, start: int = 0) -> AsyncGenerator[bytes, None]:
        with outside_call("backend", "logs", run=run.run_id):
            async with aclosing(self._backend.logs(run, start)) as pieces:
                async for piece in pieces:
                    yield piece

    async def runs(self, instance: str) -> Sequence[RunRef]:
        with outside_call("backend", "runs"):
            return await self._backend.runs(instance)

    async def forget(self, run: RunRef) -> None:
        with outside_call("backend", "forget", run=run.run_id):
            await self._backend.forget(run)

    def hardware(self) -> Hardware | None:
        return self._backend.hardware()

    async def ping(self) -> None:
        await self._backend.ping()

    async def close(self) -> None:
        await self._backend.close()
