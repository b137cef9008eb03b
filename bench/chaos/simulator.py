"""The simulated backend: a server of its own that outlives every replica. Its runs are coroutines that report over gRPC.

What it has launched once it never launches again, as Ray with its list of jobs does not; gone is for ever.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos import lines
from bench.chaos.driver import Driver, Reports
from bench.chaos.history import History


@dataclass
class Host:
    """One backend job."""

    instance: str
    task: asyncio.Task[str]
    written: list[str] = field(default_factory=list)
    reason: str = ""
    message: str = ""


class Simulator:
    """Launch, observe, stop; every answer from memory, every effect in the history first."""

    def __init__(self, history: History, reports: Reports, seed: int) -> None:
        self._history = history
        self._reports = reports
        self._seed = seed
        self._hosts: dict[str, Host] = {}

    async def answer(self, request: dict[str, Any]) -> Any:
        return getattr(self, f"_{request.pop('verb')}")(**request)

    def _launch(self, host: str, instance: str, manifest_uri: str, token: str) -> str:
        if host not in self._hosts:
            self._history.note("launched", host=host)
            written: list[str] = []
            draw = random.Random(f"{self._seed}/{host}")
            driver = Driver(host, manifest_uri, token, self._reports, self._history, draw, written)
            task = asyncio.create_task(driver.drive())
            self._hosts[host] = Host(instance=instance, task=task, written=written)
            task.add_done_callback(lambda done: self._over(host, done))
        else:
            self._history.note("launched_again", host=host)
        return f"sim:{host}"

    def _over(self, host: str, done: asyncio.Task[str]) -> None:
        at = self._hosts[host]
        if done.cancelled():
            at.reason, at.message = "RUN_STOPPED", "the run was stopped"
        elif (error := done.exception()) is not None:
            at.reason, at.message = "DRIVER_EXITED", f"the driver died: {error!r}"
        else:
            at.reason, at.message = "DRIVER_EXITED", done.result()
        self._history.note("ended", host=host, reason=at.reason, message=at.message)

    def _observe(self, host: str) -> dict[str, str] | None:
        at = self._hosts.get(host)
        if at is None:
            return {"reason": "RUN_LOST", "message": "the backend does not know the run"}
        return {"reason": at.reason, "message": at.message} if at.reason else None

    def _stop(self, host: str) -> None:
        if (at := self._hosts.get(host)) is not None and not at.reason:
            self._history.note("stop", host=host)
            at.task.cancel()

    def _runs(self, instance: str) -> list[str]:
        return [host for host, at in self._hosts.items() if at.instance == instance and not at.reason]

    def _logs(self, host: str) -> str:
        at = self._hosts.get(host)
        return "" if at is None else "".join(at.written)


def main(port: int, addresses: list[str], history: Path, seed: int) -> None:
    """Serves until it is killed."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(port, addresses, history, seed))


async def _serve(port: int, addresses: list[str], path: Path, seed: int) -> None:
    history = History(path)
    simulator = Simulator(history, Reports(addresses, history, random.Random(f"{seed}/reports")), seed)
    server = await lines.serve(port, simulator.answer)
    await server.serve_forever()
