"""A tenant with store credentials of its own, through a real Ray run and a real MinIO that lets nobody else in.

The server and its Ray have a key that the MinIO refuses: what is read and written there is read and written by the tenant's.
The same run shows that its spans arrive, in the trace of the call that created the job.
"""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pytest

from examples.demo import BASE_MODEL, PICTURES
from examples.restyle import restyle
from lorafleet import spec
from lorafleet.client import Client
from lorafleet.contract.layout import JobLayout
from lorafleet.states import has_ended
from lorafleet.v1 import access_service_pb2
from lorafleet.v1 import training_service_pb2 as pb
from service.backends import ray_head
from tests.collector import Collector, collecting
from tests.integration.conftest import PATIENCE_S
from tests.service.integration.test_store_credentials_s3 import limited_to
from tests.service.serving import Served, served, until
from trainer.storage import Folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
BUCKET = "two-tenants"
NOBODY = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "no-secret"}


@dataclass(frozen=True)
class Fleet:
    served: Served
    state_dir: Path
    client: Client
    collector: Collector
    secrets: tuple[str, ...]

    @property
    def ray(self) -> ray_head.HeadRecord:
        record = ray_head.load(self.state_dir / "ray" / "head.json")
        assert record is not None
        return record


@pytest.fixture
def fleet(s3: dict[str, str], tmp_path: Path) -> Iterator[Fleet]:
    client = boto3.client("s3", region_name=s3["AWS_REGION"])
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET)
    profile = limited_to(s3, "globex")
    (tmp_path / "credentials").write_text(profile)
    state_dir = tmp_path / "state"
    environment = {**s3, **NOBODY, "OMP_WAIT_POLICY": "PASSIVE", "LORAFLEET_NODE_CACHE": str(tmp_path / "node-cache")}
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        options = ("--store-credentials", str(tmp_path / "credentials"), "--otlp-endpoint", collector.endpoint, "--warm-idle-s", "0")
        server = stack.enter_context(served(state_dir, *options, env=environment))
        client = stack.enter_context(Client(server.address, tenant="globex"))
        values = dict(line.split(" = ", 1) for line in profile.splitlines() if " = " in line)
        secrets = (values["aws_secret_access_key"], values["aws_session_token"])
        yield Fleet(server, state_dir, client, collector, secrets)


def test_its_run_alone_has_them_and_they_lie_nowhere(fleet: Fleet, s3: dict[str, str], tmp_path: Path):
    restyle("sepia", PICTURES, tmp_path / "style")
    home = f"s3://{BUCKET}/globex/{tmp_path.name}"
    _fill(BASE_MODEL, f"{home}/base")
    _fill(tmp_path / "style", f"{home}/style")
    fleet.client.create_tenant("globex", access_service_pb2.Tenant(store_credentials="globex"))
    asked = spec.parse(
        {
            "base_model": {"uri": f"{home}/base"},
            "dataset": {"uri": f"{home}/style"},
            "adapter": {"rank": 4, "target_modules": ["to_q"]},
            "training": {"max_steps": 2, "micro_batch_size": 1, "learning_rate": 1e-3, "seed": 3},
            "output": {"uri": f"{home}/out"},
        }
    )
    job = fleet.client.create(asked, job_id="fox")
    until(lambda: _begun(fleet, job.name), PATIENCE_S, "the run")
    run = fleet.client.get(job.name).attempts[0].run
    handed = fleet.state_dir / "runs" / run / "store-credentials"
    assert _files_with(fleet.state_dir, fleet.secrets) == [handed], "the one file from which its driver read them"
    held = [process for process in ray_head.processes(fleet.ray) if _shows(process, fleet.secrets)]
    assert held == [], "neither a command line nor an environment that Ray made shows them"

    job = fleet.client.wait(job.name, timeout_s=PATIENCE_S)
    assert job.state == pb.JOB_STATE_SUCCEEDED, f"{job.reason} {job.message}\n{_log(fleet, job.name)[-5000:]}"
    entries = {entry.path for entry in Folder(JobLayout(job.output_uri).root).list()}
    assert {"spec.json", "adapter/manifest.json", "logs/attempt-1.log"} <= entries

    until(lambda: not (fleet.state_dir / "runs" / run).exists(), 60, "the end of what its driver was handed")
    told = str([job, *fleet.client.list(), *fleet.client.list_audit_events()]) + _log(fleet, job.name)
    assert "globex" in told
    assert not any(secret in told for secret in fleet.secrets)
    assert _files_with(fleet.state_dir, fleet.secrets) == [], "database, logs of the server, manifests"
    assert _files_with(_ray_folder(fleet), fleet.secrets) == [], "Ray's own files, its logs among them"

    call = fleet.collector.named("TrainingService/CreateTrainingJob")
    assert fleet.collector.named("launch run").trace_id == call.trace_id
    for name in ("prepare", "start workers", "train", "export"):
        span = fleet.collector.named(name)
        assert (span.service, span.trace_id, span.attributes["run"]) == ("lorafleet-trainer", call.trace_id, run)


def _fill(folder: Path, uri: str) -> None:
    Folder(uri).write_all({str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()})


def _begun(fleet: Fleet, name: str) -> bool:
    job = fleet.client.get(name)
    return has_ended(job) or job.state == pb.JOB_STATE_RUNNING


def _log(fleet: Fleet, name: str) -> str:
    return "".join(piece.text for piece in fleet.client.logs(name))


def _shows(process: psutil.Process, secrets: tuple[str, ...]) -> bool:
    shown = ""
    with suppress(psutil.Error):
        shown = str([process.cmdline(), process.environ()])
    return any(secret in shown for secret in secrets)


def _ray_folder(fleet: Fleet) -> Path:
    [folder] = [word.partition("=")[2] for word in psutil.Process(fleet.ray.pid).cmdline() if word.startswith("--temp-dir=")]
    return Path(folder)


def _files_with(folder: Path, secrets: tuple[str, ...]) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]
