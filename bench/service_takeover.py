"""How long work stands still that a killed replica had in its hands: two replicas as `lorafleet serve` runs them, one is killed.

The worst place to die: it has taken a run, and has not launched it. The other launches it once the lock has expired.
"""

import time
from collections.abc import Callable
from pathlib import Path

from bench.chaos import history, simulator
from bench.chaos.__main__ import fleet_config, free_ports, make_inputs
from bench.chaos.fleet import Replica, processes, until_listening
from lorafleet import spec
from lorafleet.client import Client

WITHIN_S = 180.0


def takeover_s(folder: Path, url: str) -> float:
    """From the kill to the launch by the other replica, with the leases of `lorafleet serve`."""
    folder.mkdir()
    make_inputs(folder)
    context = processes()
    backend_port, *ports = free_ports(3)
    path = folder / "history.jsonl"
    backend = context.Process(target=simulator.main, args=(backend_port, [f"127.0.0.1:{port}" for port in ports], path, 0), daemon=True)
    backend.start()
    replicas = [Replica(fleet_config(folder, place, port, url, backend_port, lease_s=None), context) for place, port in enumerate(ports)]
    try:
        for replica, port in zip(replicas, ports, strict=True):
            replica.arm("before_launch", 1)
            replica.start_if_dead()
            until_listening(port, 60)
        with Client(f"127.0.0.1:{ports[0]}", tenant="acme") as client:
            client.create(spec.parse({"base_model": {"uri": f"file://{folder}/base"}, "dataset": {"uri": f"file://{folder}/pictures"}}))
        _until(lambda: any(replica.fired() is not None for replica in replicas))
        killed_at = time.monotonic()
        for replica in replicas:
            replica.disarm()
        _until(lambda: any(record["what"] == "launched" for record in history.read(path)))
        return time.monotonic() - killed_at
    finally:
        for replica in replicas:
            replica.kill()
        backend.kill()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no takeover within {WITHIN_S:.0f} s")
        time.sleep(0.02)
