"""toxiproxy between the replicas and what they depend on, and between clients and replicas: links that can be cut and slowed."""

import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

REPOSITORY = Path(__file__).resolve().parents[2]


class Proxies:
    """One toxiproxy server. Each link: a port to connect to, and the port behind it."""

    def __init__(self, port: int, log: Path) -> None:
        program = subprocess.run([REPOSITORY / "scripts/get-toxiproxy.sh"], capture_output=True, text=True, check=True).stdout.strip()
        with log.open("wb") as output:
            self._process = subprocess.Popen([program, "-host", "127.0.0.1", "-port", str(port)], stdout=output, stderr=output)
        self._url = f"http://127.0.0.1:{port}"
        self._wait()

    def link(self, name: str, port: int, to_port: int) -> None:
        self._call("POST", "/proxies", {"name": name, "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{to_port}", "enabled": True})

    def cut(self, name: str) -> None:
        """Connections are closed, and new ones refused."""
        self._call("POST", f"/proxies/{name}", {"enabled": False})

    def mend(self, name: str) -> None:
        self._call("POST", f"/proxies/{name}", {"enabled": True})
        for toxic in self._call("GET", f"/proxies/{name}")["toxics"]:
            self._call("DELETE", f"/proxies/{name}/toxics/{toxic['name']}")

    def slow(self, name: str, latency_ms: int) -> None:
        with suppress(OSError):  # slow already
            attributes = {"latency": latency_ms, "jitter": latency_ms // 2}
            self._call("POST", f"/proxies/{name}/toxics", {"name": "slow", "type": "latency", "attributes": attributes})

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self._call("GET", "/version")
                return
            except (URLError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._url + path, data=data, method=method, headers={"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith(b"{") else None
