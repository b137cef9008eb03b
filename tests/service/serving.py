"""Starts a real `lorafleet serve` and waits for what it says."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Polls with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.05)


@dataclass
class Served:
    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def stop(self) -> int:
        """In good order; answers the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def command(state_dir: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "lorafleet.cli", "serve", "--listen", "127.0.0.1:0", "--state-dir", str(state_dir), *options]


@contextmanager
def served(state_dir: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    """A server that answers, stopped in good order at the end unless it is dead by then."""
    state_dir.mkdir(exist_ok=True)
    address, log = state_dir / "address", state_dir / "serve.log"
    address.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(state_dir, "--address-file", str(address), *options), stdout=output, stderr=output, env=environment, cwd=state_dir
        )
    try:
        until(lambda: (address.exists() and bool(address.read_text())) or process.poll() is not None, 60, "the server")
        assert process.poll() is None, log.read_text()
        yield Served(process, address.read_text(), log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
