"""`lorafleet serve` as a process: what it imports, what it refuses, how it ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from lorafleet.client import Client
from lorafleet.errors import InvalidInput
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.settings.serve_settings import parse_listen
from tests.service.serving import REPOSITORY, command, served

NOWHERE = ("--ray-address", "http://127.0.0.1:1")  # joins a Ray that is not there: starts none


def failed(state_dir: Path, *options: str, code: int = 1) -> str:
    """What a server that refuses to start says."""
    ran = subprocess.run(
        command(state_dir, *NOWHERE, *options),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert ran.returncode == code, ran
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_it_never_imports_torch_or_ray():
    slow = "{'torch', 'ray', 'boto3', 'alembic', 'httpx'}"
    program = f"import sys, service.server.serving, service.cli.serve; print(sorted({slow} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=REPOSITORY)
    assert ran.stdout.strip() == "[]"


def test_it_serves_remembers_its_port_and_stops_in_good_order(tmp_path: Path):
    with served(tmp_path, *NOWHERE) as first:
        with grpc.insecure_channel(first.address) as channel:
            assert not rpc.TrainingServiceStub(channel).ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme")).training_jobs
        assert f"lorafleet is listening on {first.address}" in first.log.read_text()
        assert first.stop() == 0
    with served(tmp_path, *NOWHERE) as second:
        assert second.address == first.address, "runs that outlived the first report there"


@pytest.mark.proof  # seconds count only on a machine that does nothing else
def test_its_files_are_private_and_a_folder_that_others_can_read_is_said(tmp_path: Path):
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    (state / "port").write_text("0")
    (state / "port").chmod(0o644)
    with served(state, *NOWHERE) as server:
        modes = {path.name: path.stat().st_mode & 0o777 for path in state.iterdir() if path != server.log and path.is_file()}
        assert set(modes) >= {"lock", "port", "address", "lorafleet.db", "lorafleet.db-wal", "lorafleet.db-shm"}
        assert set(modes.values()) == {0o600}, modes
        assert f"others can read {state}" in server.log.read_text()


def test_a_broken_file_of_its_state_is_named(tmp_path: Path):
    (tmp_path / "port").write_text("half a wor")
    said = failed(tmp_path)
    assert "port is broken" in " ".join(said.split())
    assert "half a wor" not in said


def test_it_starts_in_less_than_two_seconds(tmp_path: Path):
    """Once Python has kept its bytecode, as it does on every machine that does not forbid it."""
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}

    def start_s(number: int) -> float:
        began = time.monotonic()
        with served(tmp_path / str(number), *NOWHERE, env=kept):
            return time.monotonic() - began

    assert min(start_s(number) for number in range(4)) < 2


def test_one_server_for_one_state_directory_and_one_port(tmp_path: Path):
    with served(tmp_path / "one", *NOWHERE) as first:
        assert "another lorafleet serve uses" in failed(tmp_path / "one")
        told = failed(tmp_path / "two", "--listen", first.address)
        assert f"port {first.address.split(':')[1]} of 127.0.0.1 is in use" in told


def test_off_loopback_it_refuses_to_start(tmp_path: Path):
    told = failed(tmp_path, "--listen", "0.0.0.0:7600", code=2)
    assert "is not a loopback address" in told
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("listen", ["", "7600", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":7600"])
def test_what_is_no_address_is_refused(listen: str):
    with pytest.raises(InvalidInput):
        parse_listen(listen)


@pytest.mark.parametrize(("listen", "host"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:7600", "::1"), ("localhost:7600", "localhost")])
def test_loopback_addresses(listen: str, host: str):
    assert parse_listen(listen)[0] == host


def test_on_ipv6_it_listens_where_it_says(tmp_path: Path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with served(tmp_path, *NOWHERE, "--listen", "[::1]:0", "--metrics-listen", "[::1]:0") as server:
        assert server.address.startswith("[::1]:")
        assert "health and metrics on http://[::1]:" in server.log.read_text()
        with Client(server.address) as client:
            assert list(client.list()) == []


def test_an_isolation_that_names_no_tenant_is_refused(tmp_path: Path):
    """A misspelt one would silently isolate nobody."""
    assert "--isolate-tenant" in failed(tmp_path, "--isolate-tenant", "Acme!", code=2)


def test_wrong_usage_is_another_exit_code_than_a_server_that_cannot_start(tmp_path: Path):
    assert "'foo' is not HOST:PORT" in failed(tmp_path, "--listen", "foo", code=2)
