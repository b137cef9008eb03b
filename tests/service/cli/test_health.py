"""`lorafleet health`, which `helm test` runs: exit code 0 exactly when the server says SERVING."""

import os
import subprocess
import sys
from pathlib import Path

from tests.certificates import Authority, server_pair
from tests.service.serving import served, until
from tests.service.stand_in_ray import stand_in_ray


def health(*arguments: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORAFLEET_")}
    command = [sys.executable, "-m", "lorafleet.cli", *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_a_server_that_serves_is_healthy_over_tls_without_a_token(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = server_pair(authority)
    tls = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--api-tokens")
    with stand_in_ray() as ray, served(tmp_path / "state", "--ray-address", ray.address, *tls) as server:
        until(lambda: health("--tls-ca", str(authority.file), "health", "--server", server.address)[0] == 0, 60, "SERVING")
        code, told = health("--tls", "health", "--server", server.address, "--timeout-s", "2")
        assert code == 1, "a certificate that nobody vouches for"
        assert "does not answer within 2 s" in told


def test_a_server_without_its_backend_is_not_healthy(tmp_path: Path) -> None:
    with served(tmp_path / "state", "--ray-address", "http://127.0.0.1:1") as server:
        code, told = health("health", "--server", server.address)
        assert (code, told.strip()) == (1, f"{server.address}: NOT_SERVING")
    code, told = health("health", "--server", server.address, "--timeout-s", "1")
    assert code == 1
    assert "does not answer" in told
