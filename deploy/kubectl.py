"""kubectl as a program: its answers as JSON, and ways into the cluster that are opened again when their pod goes. Knows no lorafleet."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")
_PAUSE_S = 0.5


class KubectlFailed(Exception):
    """What kubectl said on stderr."""


def kubectl(*arguments: str, stdin: str | None = None, timeout_s: float = 60) -> str:
    """What it says on stdout. Raises KubectlFailed."""
    ran = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s)
    if ran.returncode:
        raise KubectlFailed(f"kubectl {' '.join(arguments)}: {ran.stderr.strip()}")
    return ran.stdout


def get(kind: str, *, namespace: str, name: str = "", selector: str = "") -> Any:
    """One object by its name, or the list of those that match. Raises KubectlFailed, also when the one is not there."""
    chosen = [name] if name else [f"--selector={selector}"] if selector else []
    answer = json.loads(kubectl("--namespace", namespace, "get", kind, *chosen, "--output=json"))
    return answer if name else answer["items"]


def apply(objects: Sequence[dict[str, Any]]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=lorafleet-deploy", "-f", "-", stdin=json.dumps(listed))


@contextmanager
def port_forward(namespace: str, name: str, port: int, *, kind: str = "service") -> Iterator[str]:
    """An address on loopback that leads to a service, and at the same address to another pod of it once the first is gone."""
    forward = _Forward(namespace, f"{kind}/{name}", port)
    try:
        yield f"127.0.0.1:{forward.wait()}"
    finally:
        forward.close()


class _Forward:
    """Runs `kubectl port-forward` again and again: it ends with the pod that it chose."""

    def __init__(self, namespace: str, target: str, port: int) -> None:
        self._target = ["kubectl", "--namespace", namespace, "port-forward", target]
        self._port = port
        self._local = ""  # any free port at first, and then always that one
        self._closing = threading.Event()
        self._open = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""
        self._thread = threading.Thread(target=self._keep_open, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float = 120) -> str:
        if not self._open.wait(timeout_s):
            self.close()
            raise KubectlFailed(f"{' '.join(self._target)} {self._port}: no way in within {timeout_s:.0f} s: {self._said.decode()}")
        return self._local

    def close(self) -> None:
        self._closing.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(10)

    def _keep_open(self) -> None:
        while not self._closing.is_set():
            command = [*self._target, f"{self._local}:{self._port}"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            assert self._process.stdout is not None  # noqa: S101 - as it was asked for
            for line in self._process.stdout:
                if (found := _FORWARDING.search(line)) is not None:
                    self._local = found[1].decode()
                    self._open.set()
                elif b"lost connection to pod" in line:  # it lives on, and leads nowhere
                    self._process.terminate()
                else:
                    self._said = line
            self._process.wait()
            self._closing.wait(_PAUSE_S)
