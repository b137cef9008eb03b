"""What a test does with the release: jobs by gRPC with TLS and token, their pods by kubectl, their files by S3."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from deploy.kubectl import get, kubectl, port_forward
from deploy.set_up import admin_client
from deploy.store import Store, open_store
from examples.restyle import restyle
from lorafleet import spec
from lorafleet.blobs import blobs_at
from lorafleet.client import Client, Credentials
from lorafleet.download import download
from lorafleet.errors import LorafleetError
from lorafleet.states import has_ended
from lorafleet.v1 import access_service_pb2 as access
from lorafleet.v1 import training_service_pb2 as pb
from service.backends.kuberay.names import object_name
from tests.k8s.release import REPOSITORY, Release
from tests.k8s.waiting import until

TENANT = "default"
PATIENCE_S = 300  # two cores, shared
RUN_LABEL = "lorafleet.dev/run"
SESSION = secrets.token_hex(3)  # in every job's id: a release that was kept knows the jobs of earlier sessions


@dataclass
class Fleet:
    """An open way to all of it."""

    release: Release
    client: Client
    store: Store
    tenant: str = TENANT

    @property
    def runs_namespace(self) -> str:
        return self.release.namespace_of(self.tenant)

    @classmethod
    @contextmanager
    def open(cls, release: Release) -> Iterator["Fleet"]:
        with ExitStack() as stack:
            store = stack.enter_context(open_store(release.namespace))
            address = stack.enter_context(port_forward(release.namespace, "lorafleet", 7600))
            credentials = Credentials(token_file=release.build / "token", tls_ca=release.build / "ca.crt")
            fleet = cls(release, stack.enter_context(Client(address, tenant=TENANT, credentials=credentials)), store)
            os.environ.update(store.environment)  # downloads read the store by themselves
            fleet.fill_store()
            yield fleet

    def fill_store(self) -> None:
        style = self.release.build / "style"
        restyle("sunset", REPOSITORY / "examples" / "data" / "noto-emoji", style)
        self.store.upload(REPOSITORY / "examples" / "models" / "emoji-sd", "base-models", "emoji-sd")
        self.store.upload(style, "data-sets", "emoji-style")

    def submit(self, job_id: str, *, steps: int = 5, step_ms: int = 0, gates: Sequence[int] = (), **sections: dict[str, Any]) -> str:
        """The job's name. Behind a step that is a gate it stays until `open_gate`. `sections` are merged into the spec:
        cluster={"num_workers": 2}."""
        fields: dict[str, Any] = {
            "base_model": {"uri": "s3://base-models/emoji-sd"},
            "dataset": {"uri": "s3://data-sets/emoji-style", "resolution": 64},
            "training": {"max_steps": steps},
            "checkpointing": {"every_steps": 5},
            "labels": {"step-ms": str(step_ms), "gates": ",".join(map(str, gates))},
        }
        for section, changes in sections.items():
            fields[section] = {**fields.get(section, {}), **changes}
        return self.client.create(spec.parse(fields), job_id=f"{job_id}-{SESSION}").name

    def open_gate(self, job: pb.TrainingJob, step: int) -> None:
        bucket, prefix = folder_of(job)
        self.store.s3.put_object(Bucket=bucket, Key=f"{prefix}/gate-{step}", Body=b"")

    def job(self, name: str) -> pb.TrainingJob:
        return self.client.get(name)

    def until(self, name: str, *states: str, within_s: float = PATIENCE_S) -> pb.TrainingJob:
        """The job once it is in one of the states. A job that has ended otherwise is not waited for."""
        wanted = {pb.JobState.Value(f"JOB_STATE_{state}") for state in states}

        def reached() -> pb.TrainingJob | None:
            job = self.job(name)
            assert job.state in wanted or not has_ended(job), f"{name} is {pb.JobState.Name(job.state)}: {job.reason} {job.message}"
            return job if job.state in wanted else None

        return until(reached, within_s, f"{' or '.join(states)} of {name}", lambda: self.tell(name))

    def until_step(self, name: str, step: int, within_s: float = PATIENCE_S) -> pb.TrainingJob:
        until(lambda: self.job(name).progress.step >= step, within_s, f"step {step} of {name}", lambda: self.tell(name))
        return self.job(name)

    def succeeded(self, name: str, within_s: float = PATIENCE_S) -> pb.TrainingJob:
        """The job, which has ended as it should: once, with one artifact that is what it was committed as."""
        job = self.until(name, "SUCCEEDED", within_s=within_s)
        assert job.progress.step == job.spec.training.max_steps
        folder = self.release.build / "downloads" / job.uid
        assert download(blobs_at(job.artifact.uri), job.artifact.manifest_sha256, folder).files
        return job

    def pods(self, job: pb.TrainingJob, *, kind: str = "") -> list[Any]:
        """Pods of the job's newest run that are there and not on their way out; `kind` is head or worker."""
        return [pod for pod in self._all_pods(job, kind) if "deletionTimestamp" not in pod["metadata"]]

    def until_no_pods(self, job: pb.TrainingJob, within_s: float) -> None:
        until(lambda: not self._all_pods(job, ""), within_s, f"the end of all pods of {job.name}", lambda: self.tell(job.name))

    def ray_jobs(self) -> list[str]:
        return [each["metadata"]["name"] for each in get("rayjob", namespace=self.runs_namespace)]

    def delete_pod(self, pod: Any, *options: str) -> None:
        kubectl("--namespace", pod["metadata"]["namespace"], "delete", "pod", pod["metadata"]["name"], "--wait=false", *options)

    def clear(self) -> None:
        """Ends what has not ended, and waits for that. What is left of jobs that ended by themselves goes by itself."""
        unwanted = [job for job in self.client.list() if not has_ended(job)]
        for job in unwanted:
            with suppress(LorafleetError):  # it may end meanwhile
                self.client.cancel(job.name)
        for job in unwanted:
            if job.attempts:
                self.until_no_pods(self.job(job.name), PATIENCE_S)

    @contextmanager
    def of_tenant(self, tenant: str) -> Iterator["Fleet"]:
        """The same fleet for another tenant, with a token of its own."""
        with self.admin(tenant) as admin:
            secret = admin.create_api_token(access.ROLE_OPERATOR, display_name="made by tests/k8s").secret
        with port_forward(self.release.namespace, "lorafleet", 7600) as address:
            credentials = Credentials(token=secret, tls_ca=self.release.build / "ca.crt")
            with Client(address, tenant=tenant, credentials=credentials) as client:
                yield replace(self, client=client, tenant=tenant)

    @contextmanager
    def admin(self, tenant: str = TENANT) -> Iterator[Client]:
        """A client of the service's administrator, acting in that tenant."""
        token = kubectl("-n", self.release.namespace, "create", "token", "lorafleet-admin", "--audience", "lorafleet")
        file = self.release.build / "admin-token"
        file.touch(mode=0o600)
        file.write_text(token)
        with admin_client(self.release.namespace, self.release.build, file, tenant) as client:
            yield client

    def tell(self, name: str) -> str:
        """How a job stands, for the message of a test that fails."""
        namespace = self.runs_namespace
        objects = kubectl("-n", namespace, "get", "rayjob,raycluster,pod", "-o", "wide")
        events = kubectl("-n", namespace, "get", "events", "--sort-by=.lastTimestamp").splitlines()[-15:]
        return "\n".join([str(self.job(name)), objects, *events])

    def _all_pods(self, job: pb.TrainingJob, kind: str) -> list[Any]:
        selector = f"{RUN_LABEL}={run_object(job)}" + (f",ray.io/node-type={kind}" if kind else "")
        return get("pod", namespace=self.runs_namespace, selector=selector)


def run_object(job: pb.TrainingJob) -> str:
    """Name of the RayJob of the job's newest run, and of the Secret beside it."""
    return object_name(job.attempts[-1].run)


def log_text(fleet: Fleet, name: str) -> str:
    return "".join(piece.text for piece in fleet.client.logs(name))


def folder_of(job: pb.TrainingJob) -> tuple[str, str]:
    """Bucket and prefix of what the job writes."""
    bucket, _, prefix = job.output_uri.removeprefix("s3://").partition("/")
    return bucket, prefix
