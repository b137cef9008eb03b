"""The simulated backend as a replica sees it. Only bench/chaos uses it: no option of `lorafleet serve` leads here."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from bench.chaos import lines
from lorafleet.errors import Unavailable
from service.backends.base import Alive, Observation, RunRef, RunRequest
from service.control.attempts import Gone
from service.control.capacity import Hardware


class SimBackend:
    """Keeps the contract of the real ones (tests/bench/test_chaos.py). `reach` is told of every point where a kill would hurt."""

    def __init__(self, port: int, reach: Callable[[str], None] = lambda point: None) -> None:
        self._port = port
        self._reach = reach

    async def launch(self, run: RunRequest) -> str:
        self._reach("before_launch")
        handle = await self._ask("launch", host=run.run_id, instance=run.instance, manifest_uri=run.manifest_uri, token=run.token)
        self._reach("after_launch")
        return handle

    async def observe(self, run: RunRef) -> Observation:
        seen = await self._ask("observe", host=run.run_id)
        return Alive() if seen is None else Gone(reason=seen["reason"], message=seen["message"])

    async def stop(self, run: RunRef) -> None:
        self._reach("before_stop")
        await self._ask("stop", host=run.run_id)
        self._reach("after_stop")

    async def runs(self, instance: str) -> Sequence[RunRef]:
        return [RunRef(run_id=host, handle=f"sim:{host}") for host in await self._ask("runs", instance=instance)]

    async def logs(self, run: RunRef, start: int = 0) -> AsyncGenerator[bytes, None]:
        if text := (await self._ask("logs", host=run.run_id)).encode()[start:]:
            yield text

    async def forget(self, run: RunRef) -> None:
        """Its history is kept: it is what is checked afterwards."""

    def hardware(self) -> Hardware | None:
        """It may grow."""
        return None

    async def ping(self) -> None:
        """What it does when it is away, every other call shows."""

    async def close(self) -> None:
        """Nothing was started for this process."""

    async def _ask(self, verb: str, **fields: Any) -> Any:
        try:
            return await lines.ask(self._port, verb, **fields)
        except (OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"the simulated backend does not answer: {error!r}", reason="BACKEND_UNREACHABLE") from error
