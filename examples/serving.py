"""Starts `lorafleet serve` for a demo or a bench, on a free port of loopback. Knows nothing of what is submitted to it."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from examples.processes import Servers

READY_S = 60
RAY_START_S = 180


def serve(servers: Servers, folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> str:
    """Start the control plane, its state under `folder`; returns its address. Raises ServerDied."""
    address_file = folder / "address"
    command = [sys.executable, "-m", "lorafleet.cli", "serve", "--listen", "127.0.0.1:0", "--address-file", str(address_file)]
    server = servers.start("server", [*command, "--state-dir", str(folder / "state"), *options], environment or {})
    return servers.wait_for_file(address_file, server, timeout_s=READY_S)


def wait_for_ray(folder: Path) -> None:
    """Wait until the local Ray of the server under `folder` answers: a bench must not time its start. Raises TimeoutError."""
    from service.backends import ray_head

    deadline = time.monotonic() + RAY_START_S
    while not ((record := ray_head.load(folder / "state" / "ray" / "head.json")) and ray_head.alive(record)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the local Ray is not up after {RAY_START_S} s; see {folder}/server.log")
        time.sleep(0.5)
