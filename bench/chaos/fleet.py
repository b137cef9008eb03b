"""Three replicas as processes: started, killed, paused, and started again when they are dead."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.chaos import replica as entry
from bench.chaos.replica import ReplicaConfig

PRELOADED = ["bench.chaos.replica", "bench.chaos.simulator"]


def processes() -> Any:
    """Where processes of the fleet come from: a server that has imported all and forks."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Replica:
    """One place in the fleet, whoever is in it."""

    def __init__(self, config: ReplicaConfig, context: Any) -> None:
        self.config = config
        self._context = context
        self._process: Any = None
        self._lock = threading.Lock()
        self._paused = False
        self.starts = 0

    @property
    def works(self) -> bool:
        """Neither dead nor paused."""
        return self._alive and not self._paused

    @property
    def _alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start_if_dead(self) -> None:
        with self._lock:
            if not self._alive:
                self._paused = False
                self._process = self._context.Process(target=entry.main, args=(self.config,), name=self.config.name, daemon=True)
                self._process.start()
                self.starts += 1

    def kill(self) -> bool:
        return self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)
        self._process.join(20)
        self.kill()

    def pause(self) -> bool:
        with self._lock:
            if not self._alive:
                return False
            self._paused = True
            os.kill(self._process.pid, signal.SIGSTOP)
            return True

    def resume(self) -> None:
        with self._lock:
            self._paused = False
            if self._alive:
                os.kill(self._process.pid, signal.SIGCONT)

    def arm(self, point: str, number: int) -> None:
        temporary = self.config.failpoint.with_suffix(".new")
        temporary.write_text(f"{point} {number}")
        temporary.rename(self.config.failpoint)

    def disarm(self) -> None:
        self.config.failpoint.unlink(missing_ok=True)

    def fired(self) -> str | None:
        """The point at which it was killed, once for each time."""
        path = self.config.failpoint.with_suffix(".fired")
        with suppress(FileNotFoundError):
            point = path.read_text().split()[0]
            path.unlink()
            return point
        return None

    def _signal(self, number: int) -> bool:
        with self._lock:
            if not self._alive:
                return False
            os.kill(self._process.pid, number)
            return True


class Fleet:
    """The replicas, and a thread that starts those that died."""

    def __init__(self, folder: Path, configs: list[ReplicaConfig], context: Any) -> None:
        self.folder = folder
        self.replicas = [Replica(config, context) for config in configs]
        self.fired: Counter[str] = Counter()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        for replica in self.replicas:
            replica.start_if_dead()
        self.until_listening()
        self._keeper.start()

    def until_listening(self) -> None:
        """All replicas; whatever was armed is not any more."""
        for replica in self.replicas:
            replica.disarm()
        for replica in self.replicas:
            until_listening(replica.config.settings.port, 60)

    def stop(self) -> None:
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for replica in self.replicas:
            replica.resume()
            replica.terminate()
        self._collect()

    def _keep(self) -> None:
        while not self._over.wait(0.25):
            self._collect()
            for replica in self.replicas:
                replica.start_if_dead()

    def _collect(self) -> None:
        for replica in self.replicas:
            if (point := replica.fired()) is not None:
                self.fired[f"at_{point}"] += 1


def until_listening(port: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
